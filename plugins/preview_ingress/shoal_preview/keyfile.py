"""The key of signed links: read from a file, or made once and kept in one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

from shoal.errors import ConfigError

MIN_LENGTH: Final = 32
"""Characters; what the server makes itself has 43."""


def read(path: Path) -> bytes:
    """The key in an existing file. Blocks. Raises ConfigError."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"ingress.preview.key_file: cannot read {path}: {error.strerror}") from None
    if len(key) < MIN_LENGTH:
        raise ConfigError(f"ingress.preview.key_file: {path} must hold at least {MIN_LENGTH} characters")
    return key


def read_or_make(path: Path) -> bytes:
    """The key in the file, which is made first, for its owner alone, if there is none. Blocks. Raises ConfigError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make(path)
    except OSError as error:
        raise ConfigError(f"the key of preview links cannot be kept in {path}: {error.strerror}") from None
    return read(path)


def _make(path: Path) -> None:
    """Whole or not at all, and never over one that another process made meanwhile."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
