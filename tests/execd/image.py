"""execd as an image: the stand-in, made for the occasion, or the real one, where somebody built it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

import pytest
from tests.support import real

KINDS: Final = ["stand-in", pytest.param("real", marks=pytest.mark.needs("real", parts=["execd"]))]
"""Parameters for tests that run on both."""
BOOTSTRAP: Final = """#!/bin/sh
${EXECD:-/opt/opensandbox/execd} &
exec "$@"
"""


def dockerfile() -> str:
    """What follows ``FROM`` a BusyBox for the stand-in."""
    daemon = (Path(__file__).parent / "stand_in.sh").read_text()
    files = {"/execd": daemon, "/bootstrap.sh": BOOTSTRAP}
    lines = [f"RUN echo {_encoded(text)} | base64 -d >{path} && chmod 755 {path}" for path, text in files.items()]
    return "\n".join(lines)


def real_image() -> str:
    """The name of the real one's image, for tests that need it."""
    return real.part("execd")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
