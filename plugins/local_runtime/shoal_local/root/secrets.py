"""What of this machine no sandbox may see: the server's own files, and where they are hidden.

A mask over a file goes when the file is renamed or removed, as editors and a clean stop do. So the directory around it
is hidden, unless others live there too (``/etc``): then the file itself.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from shoal.config.settings import Settings
from shoal_local.config import LocalSettings
from shoal_local.state.directory import StateDirectory

log: Final = structlog.get_logger("shoal.local")

_SHARED: Final = frozenset(
    Path(name)
    for name in ("/etc/ssl", "/etc/ssl/certs", "/etc/ssl/private", "/etc/pki", "/var/lib", "/var/log", "/var/cache")
)
"""Directories, besides those at the top and everything below ``_SYSTEM``, that hold many programs' files."""
_SYSTEM: Final = tuple(
    Path(name) for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc", "/sys", "/dev")
)
_CLIENT_CONFIG: Final = "~/.opensandbox/config.toml"
"""Where OpenSandbox's command line keeps its API key."""
_COMPANIONS: Final = ("", "-wal", "-shm", "-journal", ".lock", ".reserve")


def secret_paths(
    settings: Settings, local: LocalSettings, state: StateDirectory, config: Path | None
) -> tuple[Path, ...]:
    """Files and directories, without links: state, store, keys, configuration and what it names, logs."""
    store = settings.store.file.absolute()
    found = [state.path, settings.store.keys_dir.absolute()]
    found += [store.with_name(f"{store.name}{suffix}") for suffix in _COMPANIONS]
    found += [Path(path).absolute() for path in (settings.log.file_path, settings.log.access_file_path) if path]
    found.append(Path(_CLIENT_CONFIG).expanduser())
    if config is not None:
        found += [config.absolute(), *_named(config)]
    found += [Path(path).expanduser() for path in local.hidden_paths]
    return tuple(dict.fromkeys(Path(os.path.realpath(path)) for path in found))


def masks(secrets: tuple[Path, ...]) -> tuple[Path, ...]:
    """What is hidden for these: directories where possible, none within another."""
    wanted = {path if path.is_dir() or not _own(path.parent) else path.parent for path in secrets}
    for path in sorted(wanted):
        if path in secrets and path.is_file() and path.stat().st_mode & 0o004:
            log.warning("a file of the server lies among others', and is hidden by its name only", path=str(path))
    return tuple(path for path in sorted(wanted) if not any(above in wanted for above in path.parents))


def _own(folder: Path) -> bool:
    """May a sandbox do without this directory?"""
    system = any(folder.is_relative_to(place) for place in _SYSTEM)
    return len(folder.parts) > 2 and folder not in _SHARED and not system


def _named(config: Path) -> Iterator[Path]:
    """Files that the configuration names, whatever for: keys, tables of keys, credentials of clusters."""
    with suppress(OSError, tomllib.TOMLDecodeError):
        raw = tomllib.loads(config.read_text())
        raw.get("local", {}).pop("images", None)
        for text in _strings(raw):
            path = Path(text).expanduser() if text.startswith("~") else Path(text)
            with suppress(OSError, ValueError, RuntimeError):
                if path.is_absolute() and path.is_file() and not _public(path):
                    yield path


def _public(path: Path) -> bool:
    """Is it a file of the system that everybody may read, such as a certificate authority's?"""
    shared = any(path.is_relative_to(place) for place in (*_SYSTEM, Path("/etc")))
    return shared and bool(path.stat().st_mode & 0o004)


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
