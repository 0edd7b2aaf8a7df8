"""Where a server would write its log, looked at without writing."""

from __future__ import annotations

from pathlib import Path

from shoal.config.settings import Settings
from shoal.kit import hindrance
from shoal.logs.setup import DEFAULT_ACCESS_FILE, DEFAULT_FILE


def unwritable(settings: Settings) -> list[str]:
    """One line for each file that this user could not open for writing, or not make."""
    places: dict[str, Path] = {}
    if settings.log.file_enabled:
        places["log.file_path"] = Path(settings.log.file_path or Path(DEFAULT_FILE).expanduser())
        places["log.access_file_path"] = Path(settings.log.access_file_path or Path(DEFAULT_ACCESS_FILE).expanduser())
    return [f"{key}: {why}" for key, path in places.items() if (why := hindrance(path))]
