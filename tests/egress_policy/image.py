"""The egress sidecar as an image: the stand-in, made for the occasion, or the real one, where somebody built it."""

from __future__ import annotations

import base64
import gzip
from pathlib import Path
from typing import Final

import pytest
from tests.support import real

BASE: Final = "shoal-test/debian:latest"
"""Has python3 and nftables."""
PROGRAM: Final = "/opt/egress-stand-in.py"
KINDS: Final = [
    pytest.param("stand-in", marks=pytest.mark.needs("debian")),
    pytest.param("real", marks=pytest.mark.needs("real", parts=["egress"])),
]
"""Parameters for tests that run on both."""


def dockerfile(linger: int = 0) -> str:
    """What follows ``FROM`` the base for the stand-in, which takes ``linger`` seconds to end."""
    source = gzip.compress((Path(__file__).parent / "stand_in.py").read_bytes(), mtime=0)
    return "\n".join(
        [
            f"RUN echo {base64.b64encode(source).decode()} | base64 -d | gunzip >{PROGRAM}",
            f"ENV STAND_IN_LINGER={linger}",
            f'ENTRYPOINT ["python3", "{PROGRAM}"]',
        ]
    )


def real_image() -> str:
    """The name of the real one's image, for tests that need it."""
    return real.part("egress")
