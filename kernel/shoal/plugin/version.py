"""The version of the plugin contract, and what a plugin says it needs (policy: docs/plugins.md, "Versions")."""

from __future__ import annotations

import re
from typing import Any, Final

from shoal.errors import ConfigError

API_VERSION: Final = "1.1"
"""``MAJOR.MINOR``. A minor version adds; a major version takes away what was retired before."""

NEEDED: Final = "SHOAL_API_VERSION"
"""The attribute of a plugin that states the least version that it needs."""

_FORM = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


def check_version(name: str, plugin: Any) -> None:
    """Raises ConfigError, one line that names the plugin, if it needs another version of the contract than this one."""
    needed = getattr(plugin, NEEDED, None)
    if needed is None:
        return
    parts = _parts(needed)
    if parts is None:
        raise ConfigError(f"plugin {name!r}: {NEEDED} must be a text such as {API_VERSION!r}")
    here = _parts(API_VERSION)
    assert here is not None  # noqa: S101 - it is ours
    if parts[0] != here[0] or parts[1] > here[1]:
        advice = "update shoal" if parts > here else "update the plugin"
        raise ConfigError(
            f"plugin {name!r} needs version {needed} of the plugin API, and this server has {API_VERSION}: {advice}"
        )


def _parts(version: Any) -> tuple[int, int] | None:
    match = _FORM.fullmatch(version) if isinstance(version, str) else None
    return (int(match[1]), int(match[2])) if match else None
