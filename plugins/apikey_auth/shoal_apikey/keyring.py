"""The keys in force: digest → principal, replaced as a whole when a file of keys changes.

A file that cannot be read, or says something malformed, changes nothing: its last good keys stay in force. A file that
is gone or holds no key at all has its keys revoked, once two looks in a row find it so: programs that rewrite a file
may leave it absent or empty for an instant.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec import Struct

from shoal.errors import ConfigError
from shoal.plugin.interfaces import Principal
from shoal_apikey.sources import BadKeys, KeySource

log = structlog.get_logger("shoal.apikey")

SHARED = "it holds a key of another name as well"


class KeyringEntry(Struct):
    """One source, its principal, and what it held when it was last read."""

    source: KeySource
    principal: Principal
    keys: frozenset[bytes] = frozenset()
    suspected: bool = False
    """The last look found no keys."""
    complaint: str | None = None
    """What was last logged about it, so that it is said once and not each second."""

    def __repr__(self) -> str:
        return f"Entry(principal={self.principal!r})"


class Keyring:
    """Every key of every source. `find` may be called while `refresh` runs on another thread."""

    def __init__(self, entries: Sequence[KeyringEntry]) -> None:
        self._entries = list(entries)
        self._principals: dict[bytes, Principal] = {}

    def find(self, digest: bytes) -> Principal | None:
        """Whose key this is the digest of."""
        return self._principals.get(digest)

    @property
    def changes(self) -> bool:
        """Is there anything that `refresh` could find changed?"""
        return any(entry.source.changes for entry in self._entries)

    def load(self) -> None:
        """Read every source for the first time.

        Raises ConfigError if one is missing, unreadable, malformed or empty, or if two names hold the same key.
        """
        for entry in self._entries:
            try:
                entry.keys = entry.source.read()
                if not entry.keys:
                    raise BadKeys("there is no such file, or it holds no key")
            except BadKeys as error:
                raise ConfigError(f"apikey_auth.keys: key {entry.principal.name}: {error}") from None
        for name in self._publish():
            raise ConfigError(f"apikey_auth.keys: key {name}: {SHARED}")

    def refresh(self) -> None:
        """Read what may have changed once more, and put it in force."""
        troubles = {entry.principal.name: _read_again(entry) for entry in self._entries if entry.source.changes}
        for name in self._publish():
            troubles[name] = troubles.get(name) or f"{SHARED}; the name that is configured first has it"
        for entry in self._entries:
            _note(entry, troubles.get(entry.principal.name))

    def _publish(self) -> list[str]:
        """Put the entries' keys in force; of names that share a key the first has it. Returns the other names."""
        principals: dict[bytes, Principal] = {}
        sharing: list[str] = []
        for entry in self._entries:
            if not principals.keys().isdisjoint(entry.keys):
                sharing.append(entry.principal.name)
            principals = {**dict.fromkeys(entry.keys, entry.principal), **principals}
        self._principals = principals
        return sharing


def _read_again(entry: KeyringEntry) -> str | None:
    """Take over what the source holds now; returns what is wrong with it, if anything is."""
    try:
        keys = entry.source.read()
    except BadKeys as error:
        return f"{error}; its last good keys stay in force"
    if entry.keys and not keys and not entry.suspected:
        entry.suspected = True
        return entry.complaint
    entry.suspected = False
    if keys != entry.keys:
        entry.keys = keys
        log.info("API keys replaced", key=entry.principal.name, count=len(keys))
    return None if keys else "the file is gone, or holds no key; its keys are revoked"


def _note(entry: KeyringEntry, trouble: str | None) -> None:
    if trouble is not None and trouble != entry.complaint:
        log.error("API key file cannot be used", key=entry.principal.name, reason=trouble)
    entry.complaint = trouble
