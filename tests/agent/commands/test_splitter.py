"""Lines of output."""

from __future__ import annotations

import itertools

import pytest

from shoal_agent.commands.splitter import MAX_LINE_BYTES, PIECE_BYTES, LineSplitter

CASES = [
    (b"hi", ["hi"]),
    (b"a\nb\n", ["a", "b"]),
    (b"a\rb\rc", ["a", "b", "c"]),
    (b"\n", ["\n"]),
    (b"a\n\nb\n\n\nc\n", ["a", "\n", "b", "\n", "\n", "c"]),
    (b"a\r\n\r\nb\r\n", ["a", "\n", "b"]),
    (b"a\r\rb\n", ["a", "\n", "b"]),
    (b"a\n\rb\n", ["a", "\n", "b"]),
    (b"  x  \n", ["  x  "]),
    (b"a\0b\n", ["a\0b"]),
    (b"\xff\xfe\n", ["\ufffd\ufffd"]),
    (b"\xe2\x82\n", ["\ufffd\ufffd"]),
    ("hé😀\n".encode(), ["hé😀"]),
    ("\u2028\u0085\n".encode(), ["\u2028\u0085"]),
]


@pytest.mark.parametrize(("data", "lines"), CASES)
def test_lines_are_the_same_however_they_are_cut(data: bytes, lines: list[str]) -> None:
    for cuts in range(3):
        for places in itertools.combinations(range(len(data) + 1), cuts):
            splitter, found = LineSplitter(), []
            for start, end in itertools.pairwise((0, *places, len(data))):
                found += splitter.feed(data[start:end])
            assert found + splitter.finish() == lines


def test_a_line_that_waits_is_shown_once() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\nprompt> ") == ["one"]
    assert splitter.waits()
    assert splitter.flush() == ["prompt> "]
    assert splitter.flush() == []
    assert splitter.feed(b"\nnext\n\n") == ["next", "\n"]  # its end is no empty line


def test_half_a_character_is_never_shown() -> None:
    splitter = LineSplitter()
    splitter.feed("a😀".encode()[:-1])
    assert splitter.flush() == ["a"]
    assert splitter.feed("😀".encode()[-1:] + b"\n") == ["😀"]


@pytest.mark.parametrize("byte", [b"\xf5", b"\xfe", b"\xff"])
def test_a_byte_that_begins_no_character_is_shown(byte: bytes) -> None:
    splitter = LineSplitter()
    splitter.feed(b"a" + byte)
    assert splitter.flush() == ["a\ufffd"]


def test_long_lines_come_in_pieces_of_whole_characters() -> None:
    text = "é" * (2 * MAX_LINE_BYTES)
    splitter, found = LineSplitter(), []
    data = text.encode()
    for start in range(0, len(data), 9999):
        found += splitter.feed(data[start : start + 9999])
        assert sum(map(len, found)) * 2 >= start - MAX_LINE_BYTES - PIECE_BYTES  # what waits is bounded
    found += splitter.feed(b"\nshort\n") + splitter.finish()
    assert found[-1] == "short"
    assert "".join(found[:-1]) == text
    assert max(len(piece.encode()) for piece in found) <= MAX_LINE_BYTES


def test_a_line_of_a_megabyte_is_one() -> None:
    splitter = LineSplitter()
    assert [len(line) for line in splitter.feed(b"x" * 900_000) + splitter.feed(b"x" * 100_000 + b"\n")] == [1_000_000]
