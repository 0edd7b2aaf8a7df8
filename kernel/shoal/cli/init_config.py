"""``shoal init-config``: a commented configuration file to start from."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from shoal.errors import ConfigError


def example(name: str) -> str:
    """The text of one of the example files in ``shoal/config/examples``."""
    return resources.files("shoal.config").joinpath("examples", f"{name}.toml").read_text(encoding="utf-8")


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a configuration to ``path``, readable by its owner alone, since keys will stand in it.

    Raises ConfigError if the file exists and ``force`` is not given, or if it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o600)  # an overwritten file keeps its mode, and the umask may take bits away
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; --force overwrites it") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
