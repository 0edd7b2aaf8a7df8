"""The drivers as text, read when the agent starts: later its own files may be out of sight."""

from __future__ import annotations

import os

_HERE = os.path.dirname(__file__)
_MODULES = ("channel", "streams", "failures", "bundle", "figures", "plain", "ipy", "session")


def _read(*path: str) -> str:
    with open(os.path.join(_HERE, *path), encoding="utf-8") as file:
        return file.read()


JAVASCRIPT = _read("driver.js")
"""For ``node -e``; its argument is the socket's descriptor."""
PYTHON = {name: _read("pydriver", f"{name}.py") for name in _MODULES}
"""Modules by name."""
PYTHON_LOADER = _read("pydriver", "loader.py")
"""For ``python3 -c``; its argument is the socket's descriptor, over which it gets `PYTHON`."""
