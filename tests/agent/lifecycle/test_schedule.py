"""Schedules."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shoal_agent.lifecycle.schedule import Schedule

START = datetime(2026, 11, 28, 19, 45, 30, tzinfo=UTC)  # a Saturday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2026-11-28 19:46"),
        ("0 * * * *", "2026-11-28 20:00"),
        ("*/20 * * * *", "2026-11-28 20:00"),
        ("45 19 * * *", "2026-11-29 19:45"),
        ("0 4 * * mon-fri", "2026-11-30 04:00"),
        ("0 4 1 * *", "2026-12-01 04:00"),
        ("0 0 1 jan *", "2027-01-01 00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00"),
        ("0 0 30 * 0", "2026-11-29 00:00"),  # either day, when both are given
        ("5,10-12/2 20 * * 7", "2026-11-29 20:05"),
        ("@daily", "2026-11-29 00:00"),
        ("TZ=UTC 30 20 * * *", "2026-11-28 20:30"),
        ("CRON_TZ=Asia/Tokyo 0 5 * * *", "2026-11-28 20:00"),
    ],
)
def test_the_next_time(text: str, expected: str) -> None:
    schedule = Schedule(text if "TZ=" in text else f"TZ=UTC {text}")
    found = datetime.fromtimestamp(schedule.after(START.timestamp()), UTC)
    assert found.strftime("%Y-%m-%d %H:%M") == expected
    assert found.second == 0


def test_every_so_many_seconds() -> None:
    assert Schedule("@every 1m30s").after(1000.0) == 1090.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* * 0 * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "x * * * *",
        "0 0 31 2 *",
        "@every 0s",
        "@every 500ms",
        "@every",
        "@never",
        "TZ=Nowhere/City * * * * *",
    ],
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        Schedule(text)
