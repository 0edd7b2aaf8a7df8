"""Where a server would write, looked at without writing: the store's file, and those of the log."""

from __future__ import annotations

import os
from pathlib import Path

from shoal.config.settings import Settings
from shoal.logs.setup import DEFAULT_ACCESS_FILE, DEFAULT_FILE


def unwritable(settings: Settings, *, embedded_store: bool) -> list[str]:
    """One line for each file that this user could not open for writing, or not make."""
    places = {"store.path": settings.store.file} if embedded_store else {}
    if settings.log.file_enabled:
        places["log.file_path"] = Path(settings.log.file_path or Path(DEFAULT_FILE).expanduser())
        places["log.access_file_path"] = Path(settings.log.access_file_path or Path(DEFAULT_ACCESS_FILE).expanduser())
    return [f"{key}: {why}" for key, path in places.items() if (why := _hindrance(path.absolute()))]


def _hindrance(path: Path) -> str | None:
    if path.is_dir():
        return f"{path} is a directory"
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if nearest != path and not nearest.is_dir():
        return f"{nearest} is not a directory"
    return None if os.access(nearest, os.W_OK) else f"{nearest} cannot be written by this user"
