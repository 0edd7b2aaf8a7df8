"""An API key for a server that nobody configured: made on its first start, and kept for its user's clients.

With a configuration file, or a key in the environment, the choice is theirs and nothing is made.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shoal.config.loader import Loaded
from shoal.config.settings import ServerSettings, StoreSettings
from shoal.errors import ConfigError
from shoal.web.guard import CONSENT, INSECURE_VARIABLE

KEY_VARIABLE: Final = "OPENSANDBOX_SERVER_API_KEY"
CLI_FILE: Final = "~/.opensandbox/config.toml"
"""Where OpenSandbox's command line looks for its server and key."""


def key_file() -> Path:
    """Where the key is kept: beside the store, among the secrets that sandboxes of this machine do not see."""
    return StoreSettings().keys_dir / "api-key"


def is_wanted(loaded: Loaded, environ: Mapping[str, str]) -> bool:
    """Whether the server would get a key of its own: nobody configured it, gave a key, or asked for none."""
    return loaded.source is None and KEY_VARIABLE not in environ and environ.get(INSECURE_VARIABLE) != CONSENT


def with_key(loaded: Loaded, key: str) -> Loaded:
    """The same configuration with ``server.api_key``."""
    return Loaded(raw={**loaded.raw, "server": {**loaded.raw.get("server", {}), "api_key": key}}, source=loaded.source)


def provide(loaded: Loaded) -> Loaded:
    """The configuration with the key, which is made first if there is none; says how to use it.

    Raises ConfigError if the key cannot be kept or read.
    """
    path = key_file()
    port = loaded.raw.get("server", {}).get("port", ServerSettings().port)
    try:
        made = _write(path, secrets.token_urlsafe(32) + "\n")
        key = path.read_text(encoding="ascii").strip()
        if made:
            _say(f"made an API key, kept in {path}")
            _tell_the_cli(Path(CLI_FILE).expanduser(), key, port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(
            f"cannot keep an API key in {path}: {reason}; `shoal serve --no-key` serves without"
        ) from error
    if not key:
        raise ConfigError(f"{path} is empty; remove it, and the next start makes another key")
    _say(f'use it: curl -H "OPEN-SANDBOX-API-KEY: $(cat {path})" http://127.0.0.1:{port}/v1/sandboxes')
    _say(f"SDKs: export OPEN_SANDBOX_API_KEY=$(cat {path}); without a key: shoal serve --no-key")
    return with_key(loaded, key)


def _tell_the_cli(path: Path, key: str, port: int) -> None:
    content = f'[connection]\napi_key = "{key}"\ndomain = "127.0.0.1:{port}"\n'
    if _write(path, content):
        _say(f"`shoal run` and the like find it in {path}, and so does the command line of OpenSandbox")
    else:
        _say(f"{path} is there already and stays as it is")


def _write(path: Path, content: str) -> bool:
    """Write a file for its owner alone, whole or not at all; False if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.exists():
        return False
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)
    except FileExistsError:  # of another start at the same moment
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _say(text: str) -> None:
    print(f"shoal: {text}", file=sys.stderr)
