"""The section ``[apikey_auth]``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from msgspec import field

from shoal.config.settings import Section, Text
from shoal_apikey.digests import HASH_FORM, parse_hash

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

SERVER_NAME = "server"
"""Of the single key that has no name of its own: ``server.api_key``."""
ANONYMOUS_NAME = "anonymous"
"""Of whoever comes through an open proxy without a key."""
RESERVED_NAMES = (SERVER_NAME, ANONYMOUS_NAME)

Scope = Literal["read", "write", "proxy"]
ProxyAccess = Literal["key", "open-paths", "open"]
"""Of proxied requests: all need a key; those by ``/sandboxes/{id}/proxy/{port}`` need none; none of them needs one."""


class NamedKeySettings(Section):
    """``[[apikey_auth.keys]]``: one caller, and where its keys are. Exactly one of ``file``, ``env`` and ``hash``.

    Attributes:
        name: for logs and ownership of sandboxes: letters, digits, ``.``, ``_``, ``-``.
        file: a file of keys or hashes, one a line; read again when it changes. ``~`` is expanded.
        env: name of an environment variable that holds one key or hash.
        hash: ``sha256:`` and the 64 hexadecimal digits of the key's SHA-256.
        scopes: any of ``read``, ``write``, ``proxy``; all of them by default.
    """

    name: Text
    file: Text | None = None
    env: Text | None = None
    hash: str | None = None
    scopes: list[Scope] = field(default_factory=lambda: ["read", "write", "proxy"])

    def __post_init__(self) -> None:
        """Raise ValueError, without any value that may be a key."""
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("name must be 1 to 63 letters, digits, '.', '_' or '-', and begin with a letter or digit")
        if self.name in RESERVED_NAMES:
            raise ValueError(f"the name {self.name} is taken by the server itself")
        if [self.file, self.env, self.hash].count(None) != 2:
            raise ValueError(f"key {self.name}: exactly one of file, env and hash must be given")
        if self.hash is not None and parse_hash(self.hash) is None:
            raise ValueError(f"key {self.name}: hash must be {HASH_FORM}")
        if not self.scopes:
            raise ValueError(f"key {self.name}: scopes must not be empty")

    @property
    def path(self) -> Path | None:
        """``file`` with ``~`` expanded."""
        return None if self.file is None else Path(self.file).expanduser()

    def __repr__(self) -> str:
        return f"KeySettings(name={self.name!r}, scopes={self.scopes!r})"


class ApiKeySettings(Section):
    """``[apikey_auth]``.

    Attributes:
        open_proxy: let proxied requests and WebSockets through without a valid key: whoever knows a sandbox's id then
            reaches its ports. Unset: as opensandbox-server does, open by path where ``server.api_key`` is the only
            key, and closed beside named keys.
        keys: named keys beside ``server.api_key``.
    """

    open_proxy: bool | None = None
    keys: list[NamedKeySettings] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Raise ValueError for two keys of one name."""
        names = [key.name for key in self.keys]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two keys are named {name}")

    @property
    def proxy(self) -> ProxyAccess:
        """What `open_proxy` amounts to beside these keys."""
        if self.open_proxy is None:
            return "key" if self.keys else "open-paths"
        return "open" if self.open_proxy else "key"
