"""The JSON that gateways write, and everything else that may lie in the list."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_renew.intent import Signal, parse

AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-03-04T05:06:07Z", AT),
        ("2026-03-04T05:06:07", AT),
        ("2026-03-04T05:06:07.123456789Z", AT + timedelta(microseconds=123457)),
        ("2026-03-04T05:06:07.5", AT + timedelta(seconds=0.5)),
        ("2026-03-04T07:06:07+02:00", AT),
    ],
)
def test_times_as_gateways_write_them(text: str, at: datetime) -> None:
    signal = parse(json.dumps({"sandbox_id": " abc ", "observed_at": text}).encode())
    assert signal == Signal("abc", "redis_queue", at)
    assert signal is not None
    assert signal.observed_at is not None
    assert signal.observed_at.tzinfo is not None


def test_what_else_an_intent_may_hold() -> None:
    payload = {
        "sandbox_id": "abc",
        "observed_at": "2026-03-04T05:06:07Z",
        "port": 8080,
        "request_uri": "/x?y",
        "namespace": "n",
        "more": [1],
    }
    assert parse(json.dumps(payload).encode()) == Signal("abc", "redis_queue", AT, 8080)
    assert parse(json.dumps(payload | {"port": None}).encode()) == Signal("abc", "redis_queue", AT)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"abc"',
        b"{",
        b"{}",
        b'{"sandbox_id": "abc"}',
        b'{"observed_at": "2026-03-04T05:06:07Z"}',
        b'{"sandbox_id": "  ", "observed_at": "2026-03-04T05:06:07Z"}',
        b'{"sandbox_id": 7, "observed_at": "2026-03-04T05:06:07Z"}',
        b'{"sandbox_id": "abc", "observed_at": 1772600767}',
        b'{"sandbox_id": "abc", "observed_at": "yesterday"}',
        b'{"sandbox_id": "abc", "observed_at": "2026-03-04T05:06:07Z", "port": "http"}',
        b'{"sandbox_id": "abc", "observed_at": "2026-03-04T05:06:07Z", "x": "' + b"y" * 70_000 + b'"}',
        b'{"x":' + b"[" * 30_000,
    ],
)
def test_what_is_no_intent_is_none(payload: bytes) -> None:
    assert parse(payload) is None


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(payload: bytes) -> None:
    assert parse(payload) is None or payload.lstrip().startswith(b"{")


@given(
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9)), timezone(timedelta(hours=5, minutes=30))])
    )
)
def test_every_time_comes_through(at: datetime) -> None:
    signal = parse(json.dumps({"sandbox_id": "abc", "observed_at": at.isoformat()}).encode())
    assert signal is not None
    assert signal.observed_at == at


@pytest.mark.parametrize(("age", "stale"), [(-3600, False), (0, False), (300, False), (300.001, True)])
def test_a_signal_is_stale_after_five_minutes(age: float, stale: bool) -> None:
    signal = Signal("abc", "redis_queue", AT)
    assert signal.stale(AT + timedelta(seconds=age)) is stale


def test_a_signal_of_this_process_never_is() -> None:
    assert not Signal("abc", "server_proxy").stale(AT)
