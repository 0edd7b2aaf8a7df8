"""Makes text from outside harmless for a log: no control characters, no secrets, no endless values."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from structlog.typing import EventDict

from shoal.models.secret import Secret

MAX_ID_LENGTH = 128
MAX_VALUE_LENGTH = 2000
MAX_EXCEPTION_LENGTH = 32_000
CUT = "…"

_SECRET_NAME = re.compile(
    r"api[-_]?key|authori[sz]ation|password|passwd|passphrase|secret|token|credential|cookie|(^|_)dsn$", re.IGNORECASE
)
_LIMITS = {"request_id": MAX_ID_LENGTH, "exception": MAX_EXCEPTION_LENGTH}


def escaped(text: str) -> str:
    """The text with everything that a terminal might obey, or a reader take for a new line, as ``\\n`` or ``\\u…``."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def bounded(text: str, limit: int = MAX_VALUE_LENGTH) -> str:
    """The text, cut to ``limit`` characters."""
    return text if len(text) <= limit else text[:limit] + CUT


@functools.lru_cache(maxsize=1024)
def names_secret(key: str) -> bool:
    """Whether the values of such a key are kept out of the log."""
    return _SECRET_NAME.search(key) is not None


def tame(event: EventDict) -> EventDict:
    """The event with secrets masked, long texts cut, and values of other types as text. Never raises."""
    return {str(key): _tame(str(key), value) for key, value in event.items()}


def _tame(key: str, value: Any) -> Any:
    if isinstance(value, Enum):
        value = value.value
    if value is None or type(value) in (bool, int, float):
        return value
    if names_secret(key):
        return Secret.MASK
    if isinstance(value, str):
        return bounded(str(value), _LIMITS.get(key, MAX_VALUE_LENGTH))
    if isinstance(value, Mapping):
        return {str(inner): _tame(str(inner), each) for inner, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_tame(key, each) for each in value]
    try:
        return bounded(str(value))
    except Exception as error:  # a foreign __str__
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
