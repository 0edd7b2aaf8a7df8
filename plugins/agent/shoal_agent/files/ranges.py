"""The part of a file that a download asks for: byte ranges and conditions by date."""

from __future__ import annotations

import re
import time

from shoal_agent.http.errors import UNKNOWN, ApiError
from shoal_agent.http.wire import Headers

# Compiled when they are needed, which is seldom: an agent starts without them.
_RANGE = r"bytes=[ \t]*(.*)"
_SPEC = r"([0-9]{1,18})[ \t]*-[ \t]*([0-9]{1,18})?|-[ \t]*([0-9]{1,18})"
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}
_IMF_DATE = r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT"
_RFC850_DATE = r"[A-Z][a-z]{5,8}, (\d\d)-([A-Z][a-z]{2})-(\d\d) (\d\d):(\d\d):(\d\d) GMT"
_ASCTIME_DATE = r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})"


def byte_range(header: str, size: int) -> tuple[int, int]:
    """First byte and length of the first satisfiable range in a Range header, cut at the end of a file of `size` bytes.

    Raises `ApiError` 416 for a malformed header and where no range begins inside the file.
    """
    form = re.fullmatch(_RANGE, header)
    if form is None:
        raise _unsatisfiable(f"malformed Range {header!r}", size)
    specs = [re.fullmatch(_SPEC, part.strip(" \t")) for part in form[1].split(",") if part.strip(" \t")]
    if not specs or None in specs:
        raise _unsatisfiable(f"malformed Range {header!r}", size)
    for spec in filter(None, specs):
        found = _resolve(spec, size)
        if found is not None:
            return found
    raise _unsatisfiable(f"the Range {header!r} is outside of the {size} bytes", size)


def _resolve(spec: re.Match[str], size: int) -> tuple[int, int] | None:
    if spec[3] is not None:
        length = min(int(spec[3]), size)
        return (size - length, length) if length else None
    first = int(spec[1])
    last = size - 1 if spec[2] is None else min(int(spec[2]), size - 1)
    if spec[2] is not None and int(spec[2]) < first:
        raise _unsatisfiable(f"the Range {spec[0]!r} ends before it begins", size)
    return (first, last - first + 1) if first < size else None


def _unsatisfiable(message: str, size: int) -> ApiError:
    return ApiError(416, UNKNOWN, message, (("Content-Range", f"bytes */{size}"),))


def parse_date(text: str) -> int | None:
    """The Unix time of an HTTP date in any of its three forms; None if it is none."""
    if (m := re.fullmatch(_IMF_DATE, text)) is not None:
        year, month, day, clock = int(m[3]), m[2], m[1], m.group(4, 5, 6)
    elif (m := re.fullmatch(_RFC850_DATE, text)) is not None:
        year, month, day, clock = _full_year(int(m[3])), m[2], m[1], m.group(4, 5, 6)
    elif (m := re.fullmatch(_ASCTIME_DATE, text)) is not None:
        year, month, day, clock = int(m[6]), m[1], m[2], m.group(3, 4, 5)
    else:
        return None
    if month not in _MONTHS:
        return None
    hour, minute, second = map(int, clock)
    return _seconds(year, _MONTHS[month], int(day), hour, minute, second)


def _full_year(short: int) -> int:
    """A year of two digits lies at most 50 years ahead."""
    now = time.gmtime().tm_year
    year = now - now % 100 + short
    return year - 100 if year > now + 50 else year


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if not (1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60 and year >= 1):
        return None
    shifted = year - (month <= 2)
    days = 365 * shifted + shifted // 4 - shifted // 100 + shifted // 400
    days += (153 * ((month + 9) % 12) + 2) // 5 + day - 1 - 719468
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def condition(headers: Headers, modified: float) -> int | None:
    """The status that a request's conditions call for: 412, 304, or None to go on. Malformed dates are ignored.

    There are no entity tags, so only `*` fits in If-Match and If-None-Match.
    """
    seconds = int(modified)
    match, none_match = headers.get("if-match"), headers.get("if-none-match")
    if match is not None:
        if match.strip() != "*":
            return 412
    elif (limit := _date(headers, "if-unmodified-since")) is not None and seconds > limit:
        return 412
    if none_match is not None:
        return 304 if none_match.strip() == "*" else None
    limit = _date(headers, "if-modified-since")
    return 304 if limit is not None and seconds <= limit else None


def _date(headers: Headers, name: str) -> int | None:
    value = headers.get(name)
    return None if value is None else parse_date(value)


def range_still_valid(if_range: str | None, modified: float) -> bool:
    """Whether a Range counts beside an If-Range header: only if its date is the file's. Entity tags never match."""
    return if_range is None or parse_date(if_range) == int(modified)
