"""Whether a file could be written, looked at without writing."""

from __future__ import annotations

import os
from pathlib import Path


def hindrance(path: Path) -> str | None:
    """Why this user could not open a file for writing, or not make it; None if nothing is in the way."""
    path = path.absolute()
    if path.is_dir():
        return f"{path} is a directory"
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if nearest != path and not nearest.is_dir():
        return f"{nearest} is not a directory"
    return None if os.access(nearest, os.W_OK) else f"{nearest} cannot be written by this user"
