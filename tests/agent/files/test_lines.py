"""Lines of a download, however the file is cut into blocks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_agent.files.lines import LineWindow, whole


def obvious(text: bytes, first: int, limit: int | None) -> bytes:
    lines = [line.rstrip(b"\r") for line in text.split(b"\n")]
    if text.endswith(b"\n") or not text:
        lines.pop()
    return b"\n".join(lines[first - 1 :][:limit])


@pytest.mark.parametrize(
    ("text", "first", "limit", "result"),
    [
        (b"l1\r\nl2\n\nl4", 1, 1, b"l1"),
        (b"l1\r\nl2\n\nl4", 2, 1, b"l2"),
        (b"l1\r\nl2\n\nl4", 3, 1, b""),
        (b"l1\r\nl2\n\nl4", 3, 2, b"\nl4"),
        (b"l1\r\nl2\n\nl4", 9, None, b""),
        (b"a\r\n\r\nb\r\r\nc\rd\n\n", 1, None, b"a\n\nb\nc\rd\n"),
        (b"a\r\nb\r", 1, None, b"a\nb"),
        (b"x\r\r", 1, None, b"x"),
        (b"\r\n\r", 1, None, b"\n"),
        (b"", 1, None, b""),
    ],
)
def test_as_seen_on_execd(text: bytes, first: int, limit: int | None, result: bytes) -> None:
    assert whole(text, first, limit) == result
    assert obvious(text, first, limit) == result


texts = st.lists(st.sampled_from([b"a", b"bb", b"\n", b"\r", b"\r\n"]), max_size=25).map(b"".join)


@given(texts, st.integers(1, 6), st.none() | st.integers(1, 5), st.lists(st.integers(1, 4), min_size=1, max_size=10))
def test_in_any_blocks(text: bytes, first: int, limit: int | None, sizes: list[int]) -> None:
    window, result, at = LineWindow(first, limit), b"", 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        result += window.feed(text[at : at + size])
        at += size
    assert result + window.finish() == obvious(text, first, limit)


def test_a_million_carriage_returns_take_no_time() -> None:
    text = b"\r" * 1_000_000 + b"x\n"
    assert re.sub(rb"\r+", b"", whole(text)) == b"x"
