"""Turns one log event into the bytes of one line: JSON for machines, aligned text for people.

Both take the same event: ``timestamp`` (UTC), ``level``, ``logger``, ``event``, then whatever the caller added.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

import msgspec
from structlog.typing import EventDict

from shoal.logs.text import escaped

Renderer = Callable[[EventDict], bytes]

_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLOURS = {"debug": "\x1b[36m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[35m"}

# JSON allows these raw, but terminals obey some and line splitters others: DEL, C1 controls, U+2028 and U+2029.
_RAW_CONTROL = re.compile(b"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")
_PLAIN = re.compile(r"[^\s\"'=]+")
_encoder = msgspec.json.Encoder()


def json_line(event: Any) -> bytes:
    """One line of JSON from a dict or Struct of plain values."""
    try:
        line = _encoder.encode(event)
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
        line = _encoder.encode(_encodable(msgspec.to_builtins(event, builtin_types=(datetime,))))
    if not line.isascii() or b"\x7f" in line:
        line = _RAW_CONTROL.sub(_as_json_escape, line)
    return line + b"\n"


def console_line(event: EventDict, *, colours: bool) -> bytes:
    """One line of text, and the traceback below it, indented, if there is one."""
    event = dict(event)
    at, level, logger, text = (event.pop(key) for key in ("timestamp", "level", "logger", "event"))
    exception = event.pop("exception", None)
    line = console_head(at, level, logger, colours=colours) + _coloured(escaped(str(text)), _BOLD, colours)
    pairs = console_pairs(event.items(), colours=colours)
    if exception is not None:
        pairs += "".join(f"\n    {escaped(each)}" for each in str(exception).splitlines())
    return f"{line}{pairs}\n".encode(errors="backslashreplace")


def console_head(at: datetime, level: str, logger: str, *, colours: bool) -> str:
    """Time, level and logger, as every line for people begins."""
    time = _coloured(f"{at.isoformat(' ', 'milliseconds')[:23]}Z", _DIM, colours)
    return f"{time} {_source(level, logger, colours)}: "


@functools.lru_cache(maxsize=1024)
def _source(level: str, logger: str, colours: bool) -> str:
    return f"{_coloured(f'{level.upper():<8}', _COLOURS.get(level, ''), colours)} {escaped(logger)}"


def console_pairs(pairs: Iterable[tuple[str, Any]], *, colours: bool) -> str:
    """`` key=value`` for each; values that hold blanks, quotes or worse in quotes."""
    return "".join([f"{_label(key, colours)}{_console_value(value)}" for key, value in pairs])


@functools.lru_cache(maxsize=1024)
def _label(key: str, colours: bool) -> str:
    return f" {_coloured(escaped(key), _DIM, colours)}="


def _console_value(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else escaped(repr(value))


def _coloured(text: str, colour: str, colours: bool) -> str:
    return f"{colour}{text}{_RESET}" if colours and colour else text


def _as_json_escape(match: re.Match[bytes]) -> bytes:
    return f"\\u{ord(match[0].decode()):04x}".encode()


def _encodable(value: Any) -> Any:
    """The value with what JSON cannot say as text: lone surrogates, integers beyond 64 bits."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value.bit_length() < 64 else str(value)
    return value
