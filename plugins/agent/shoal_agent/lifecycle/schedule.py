"""Schedules: cron with five fields, `@every` with whole seconds, a time zone in front."""

from __future__ import annotations

import re
from datetime import datetime, tzinfo

from shoal_agent.options import duration

_MONTHS = {name: i for i, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}  # noqa: SIM905
_DAYS = {name: i for i, name in enumerate("sun mon tue wed thu fri sat".split())}  # noqa: SIM905
_NAMED = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_RANGES: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 7, _DAYS),
)
_ZONE = re.compile(r"(?:CRON_)?TZ=(\S+)\s+")
_LAST_YEARS = 5


class Schedule:
    """When something runs. Raises ValueError for what is no schedule."""

    def __init__(self, text: str) -> None:
        text = text.strip()
        zone = _ZONE.match(text)
        self._zone = _zone(zone[1]) if zone is not None else None
        text = text[zone.end() :] if zone is not None else text
        self._every = _every(text[len("@every") :].strip()) if text.startswith("@every") else 0
        if self._every:
            return
        fields = _NAMED.get(text, text).split()
        if len(fields) != len(_RANGES):
            raise ValueError(f"{text!r} is no schedule: five fields, or @every")
        minutes, hours, days, months, weekdays = (
            _field(field, *limits) for field, limits in zip(fields, _RANGES, strict=True)
        )
        self._minutes, self._hours, self._days, self._months = minutes, hours, days, months
        self._weekdays = {day % 7 for day in weekdays}
        self._either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
        self.after(0.0)

    def after(self, moment: float) -> float:
        """The first time after `moment`, both in Unix seconds. Raises ValueError if it never comes."""
        if self._every:
            return moment + self._every
        minute = int(moment // 60 + 1) * 60
        last = minute + _LAST_YEARS * 366 * 24 * 3600
        while minute < last:
            local = datetime.fromtimestamp(minute, self._zone)
            if not self._day(local) or local.hour not in self._hours:
                minute += 3600 - local.minute * 60
            elif local.minute not in self._minutes:
                minute += 60
            else:
                return float(minute)
        raise ValueError("the schedule never comes")

    def _day(self, local: datetime) -> bool:
        if local.month not in self._months:
            return False
        of_month, of_week = local.day in self._days, local.isoweekday() % 7 in self._weekdays
        return of_month or of_week if self._either_day else of_month and of_week


def _every(text: str) -> int:
    seconds = duration(text)
    if seconds < 1 or seconds != int(seconds):
        raise ValueError(f"@every {text}: whole seconds are needed")
    return int(seconds)


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # few schedules name one

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"the time zone {name} is not known here") from None


def _field(text: str, least: int, most: int, names: dict[str, int]) -> set[int]:
    found: set[int] = set()
    for part in text.lower().split(","):
        bounds, slash, step_text = part.partition("/")
        step = _number(step_text, 1, most, {}) if slash else 1
        if bounds in ("*", "?"):
            first, last = least, most
        else:
            low, dash, high = bounds.partition("-")
            first = _number(low, least, most, names)
            last = _number(high, least, most, names) if dash else most if slash else first
        if first > last:
            raise ValueError(f"{part!r} runs backwards")
        found.update(range(first, last + 1, step))
    return found


def _number(text: str, least: int, most: int, names: dict[str, int]) -> int:
    value = names.get(text, int(text) if text.isascii() and text.isdigit() else -1)
    if not least <= value <= most:
        raise ValueError(f"{text!r} is not between {least} and {most}")
    return value
