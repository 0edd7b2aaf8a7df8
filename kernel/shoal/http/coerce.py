"""Lenient scalars: what the wire accepts for an integer, a number, a boolean and a time (docs/wire/api.md section 1).

Each function takes a decoded JSON value, or the text of a query parameter, and returns the scalar or raises `Mismatch`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})"
    r"([Tt ](?P<clock>\d{2}:\d{2}(:\d{2}([.,]\d+)?)?)(?P<zone>[Zz]|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_MAX_DIGITS = 400
"""Digits read from text; longer ones are no number that anyone means, and reading them costs quadratic time."""
_MILLISECONDS_FROM = 2e10
"""Unix times beyond this are milliseconds: in seconds it would be the year 2603."""
_BOOLEANS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


class Mismatch(Exception):
    """A value that does not fit; says what was expected and never what was sent.

    Args:
        kind: the problem's ``type`` word.
        expected: completes "expected ...".
        ctx: limits that were broken.
    """

    def __init__(self, kind: str, expected: str, ctx: dict[str, str | int | float] | None = None) -> None:
        super().__init__(expected)
        self.kind = kind
        self.expected = expected
        self.ctx = ctx


def integer(value: Any) -> int:
    """An integer, a whole float, or the text of either."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        raise Mismatch("int_from_float", "expected an integer, without a fraction")
    if not isinstance(value, str):
        raise Mismatch("int_type", "expected an integer")
    text = value.strip()
    if len(text) > _MAX_DIGITS or _INTEGER.fullmatch(text) is None:
        raise Mismatch("int_parsing", "expected an integer")
    return int(text.partition(".")[0])


def number(value: Any) -> float:
    """A finite number, or the text of one."""
    if isinstance(value, str):
        text = value.strip()
        if len(text) > _MAX_DIGITS or _NUMBER.fullmatch(text) is None:
            raise Mismatch("float_parsing", "expected a number")
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Mismatch("float_type", "expected a number")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise Mismatch("finite_number", "expected a finite number")
    return result


def boolean(value: Any) -> bool:
    """A boolean, the numbers 1 and 0, or one of the words true, yes, on, 1, false, no, off, 0 in any case."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return value == 1
    if isinstance(value, str):
        found = _BOOLEANS.get(value.strip().lower())
        if found is not None:
            return found
        raise Mismatch("bool_parsing", "expected true or false")
    raise Mismatch("bool_type", "expected true or false")


def moment(value: Any) -> datetime:
    """A time in UTC: RFC 3339, a date, a space for ``T``, no zone (UTC); Unix seconds or milliseconds."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise Mismatch("datetime_type", "expected a time, as RFC 3339 or Unix seconds")
    try:
        if isinstance(value, str):
            text = value.strip()
            if len(text) <= _MAX_DIGITS and _NUMBER.fullmatch(text) is not None:
                return _from_unix(float(text))
            return _from_text(text)
        return _from_unix(float(value))
    except (ValueError, OverflowError, OSError):
        raise Mismatch("datetime_parsing", "expected a time, as RFC 3339 or Unix seconds") from None


def _from_unix(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds / 1000 if abs(seconds) > _MILLISECONDS_FROM else seconds, UTC)


def _from_text(text: str) -> datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError
    parts = match["date"], match["clock"] or "00:00", (match["zone"] or "Z").upper()
    return datetime.fromisoformat("{}T{}{}".format(*parts)).astimezone(UTC)
