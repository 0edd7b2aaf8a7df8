"""Where keys come from: a text that is known at start, or a file that may change while the server runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from shoal.errors import ConfigError
from shoal_apikey.config import NamedKeySettings
from shoal_apikey.digests import HASH_FORM, HASH_PREFIX, digest, parse_hash

MAX_FILE_BYTES: Final = 64 * 1024


class BadKeys(Exception):
    """A source cannot be used as it is now; the text says why, without a key."""


class KeySource(ABC):
    """The keys of one name.

    Attributes:
        changes: may `read` answer otherwise later?
    """

    changes: ClassVar[bool]

    @abstractmethod
    def read(self) -> frozenset[bytes]:
        """The digests of its keys; empty if it holds none. May block. Raises BadKeys."""


class FixedSource(KeySource):
    """Keys known when the server starts."""

    changes = False

    def __init__(self, keys: frozenset[bytes]) -> None:
        self._keys = keys

    def read(self) -> frozenset[bytes]:
        return self._keys


class FileSource(KeySource):
    """A file with one key or hash a line; blank lines and lines that begin with ``#`` do not count."""

    changes = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> frozenset[bytes]:
        try:
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            raise self._bad(error.strerror or "it cannot be read") from error
        if len(content) > MAX_FILE_BYTES:
            raise self._bad(f"it is larger than {MAX_FILE_BYTES} bytes")
        try:
            lines = content.decode("utf-8").splitlines()
        except UnicodeDecodeError:
            raise self._bad("it is not UTF-8 text") from None
        return frozenset(self._line(number, line.strip()) for number, line in enumerate(lines, 1) if _counts(line))

    def _line(self, number: int, text: str) -> bytes:
        try:
            return key_or_hash(text)
        except BadKeys as error:
            raise self._bad(f"line {number}: {error}") from None

    def _bad(self, why: str) -> BadKeys:
        return BadKeys(f"{self.path}: {why}")


def key_or_hash(text: str) -> bytes:
    """The digest of a key, or the digest that ``sha256:<hex>`` names. Raises BadKeys for a malformed hash."""
    if not text.startswith(HASH_PREFIX):
        return digest(text)
    named = parse_hash(text)
    if named is None:
        raise BadKeys(f"a hash must be {HASH_FORM}")
    return named


def configured(key: NamedKeySettings, environ: Mapping[str, str]) -> KeySource:
    """The source that a ``[[apikey_auth.keys]]`` names; a file is not read yet. Raises ConfigError."""
    if key.path is not None:
        return FileSource(key.path)
    if key.env is None:
        return FixedSource(frozenset({key_or_hash(key.hash or "")}))
    text = environ.get(key.env, "").strip()
    if not text:
        raise ConfigError(f"apikey_auth.keys: key {key.name}: environment variable {key.env} is not set, or blank")
    try:
        return FixedSource(frozenset({key_or_hash(text)}))
    except BadKeys as error:
        raise ConfigError(f"apikey_auth.keys: key {key.name}: environment variable {key.env}: {error}") from None


def _counts(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")
