"""Byte ranges and conditions by date."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_agent.files import ranges
from shoal_agent.http.errors import ApiError
from shoal_agent.http.wire import Headers, http_date


@pytest.mark.parametrize(
    ("header", "size", "part"),
    [
        ("bytes=4-", 10, (4, 6)),
        ("bytes=-3", 10, (7, 3)),
        ("bytes=0-0", 10, (0, 1)),
        ("bytes=0-99", 10, (0, 10)),
        ("bytes=-50", 10, (0, 10)),
        ("bytes=0-1,4-5", 10, (0, 2)),
        ("bytes=10-20,0-1", 10, (0, 2)),
        ("bytes= 0-1", 10, (0, 2)),
    ],
)
def test_the_first_range_that_begins_inside(header: str, size: int, part: tuple[int, int]) -> None:
    assert ranges.byte_range(header, size) == part


@pytest.mark.parametrize(
    "header",
    [
        "bytes=10-",
        "bytes=5-2",
        "bytes=abc",
        "bytes=-",
        "bytes=",
        "bytes=-0",
        "items=0-1",
        "Bytes=0-1",
        "bytes=1-x",
        "",
        "bytes=٣-",
    ],
)
def test_what_cannot_be_satisfied_tells_the_size(header: str) -> None:
    with pytest.raises(ApiError) as refused:
        ranges.byte_range(header, 10)
    assert (refused.value.status, refused.value.headers) == (416, (("Content-Range", "bytes */10"),))


@given(st.integers(0, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_lies_inside(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    try:
        start, count = ranges.byte_range(f"bytes={first}-{last}", size)
    except ApiError:
        assert first >= size or last < first
        return
    assert content[start : start + count] == content[first : last + 1] != b""


@given(st.integers(0, 4_000_000_000))
def test_dates_as_the_library_reads_them(seconds: int) -> None:
    assert ranges.parse_date(http_date(seconds)) == seconds
    assert ranges.parse_date(email.utils.formatdate(seconds, usegmt=True)) == seconds


@pytest.mark.parametrize(
    "text", ["Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 08:49:37 GMT"]
)
def test_three_forms_of_a_date(text: str) -> None:
    assert ranges.parse_date(text) == 784111777


@pytest.mark.parametrize(
    "text",
    ["", "now", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 CET"],
)
def test_no_date(text: str) -> None:
    assert ranges.parse_date(text) is None


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("if-modified-since", 1000, 304),
        ("if-modified-since", 1001, 304),
        ("if-modified-since", 999, None),
        ("if-unmodified-since", 999, 412),
        ("if-unmodified-since", 1000, None),
    ],
)
def test_conditions_by_date(name: str, value: int, status: int | None) -> None:
    assert ranges.condition(Headers([(name, http_date(value))]), 1000.9) == status


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([("If-None-Match", "*")], 304),
        ([("If-None-Match", '"a"'), ("If-Modified-Since", http_date(2000))], None),
        ([("If-Match", "*")], None),
        ([("If-Match", '"a"')], 412),
        ([("If-Modified-Since", "soon")], None),
        ([], None),
    ],
)
def test_other_conditions(fields: list[tuple[str, str]], status: int | None) -> None:
    assert ranges.condition(Headers(fields), 1000) == status


def test_an_if_range_that_is_older_than_the_file() -> None:
    assert ranges.range_still_valid(None, 1000)
    assert ranges.range_still_valid(http_date(1000), 1000.5)
    assert not ranges.range_still_valid(http_date(999), 1000)
    assert not ranges.range_still_valid('"tag"', 1000)
