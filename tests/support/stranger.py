"""A stranger's plugin: a module beside the metadata that installing it would write, found by its entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def installed(folder: Path, patch: pytest.MonkeyPatch, **sources: str) -> Iterator[None]:
    """Install each source, a module's text, as a plugin of that name."""
    for name, source in sources.items():
        info = folder / f"shoal_{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: shoal-{name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[shoal.plugins]\n{name} = shoal_stranger_{name}\n")
        (folder / f"shoal_stranger_{name}.py").write_text(source)
    patch.setenv("HOME", str(folder))
    patch.syspath_prepend(str(folder))
    try:
        yield
    finally:
        for name in sources:
            sys.modules.pop(f"shoal_stranger_{name}", None)
