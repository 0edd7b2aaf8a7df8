"""Finds the configuration file and parses it; what it means is for `shoal.config.sections` to say."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from shoal.errors import ConfigError

PATH_VARIABLE = "SANDBOX_CONFIG_PATH"
DEFAULT_PATH = "~/.sandbox.toml"
EMBEDDED: dict[str, Any] = {"server": {"host": "127.0.0.1"}}
"""With no file at all, the server is for this machine alone."""


class Loaded(Struct, frozen=True):
    """A configuration file as parsed, not validated.

    Attributes:
        source: the file; None for the embedded default.
    """

    raw: dict[str, Any]
    source: Path | None = None


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """The configuration: ``path``, else ``SANDBOX_CONFIG_PATH``, else ``~/.sandbox.toml``, else the embedded default.

    Raises ConfigError for a named file that is not there, and for one that cannot be read or parsed.
    """
    named = path or (Path(environ[PATH_VARIABLE]) if environ.get(PATH_VARIABLE) else None)
    file = (named or Path(DEFAULT_PATH)).expanduser()
    if named is None and not file.exists():
        return Loaded(raw=copy.deepcopy(EMBEDDED))
    try:
        return Loaded(raw=tomllib.loads(file.read_text(encoding="utf-8")), source=file)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply") from error
    except ValueError as error:  # of TOML's own, or of a number with thousands of digits
        raise ConfigError(f"{file}: not valid TOML: {error}") from error
