"""Bytes of output become pieces of text."""

from __future__ import annotations

from shoal_agent.code.texts import Texts, split


def test_whole_lines_go_at_once_and_the_rest_waits() -> None:
    texts = Texts()
    assert texts.feed(b"a\nb") == ["a\n"]
    assert texts.holds
    assert texts.feed(b"c\n\n") == ["bc\n\n"]
    assert not texts.holds
    assert texts.feed(b"d") == []
    assert texts.rest() == ["d"]


def test_a_character_is_not_split() -> None:
    texts = Texts()
    assert texts.feed("é".encode()[:1]) == []
    assert texts.rest() == []
    assert texts.feed("é\n".encode()[1:]) == ["é\n"]
    assert texts.feed(b"\xe2\x98") == []
    assert texts.rest(final=True) == ["\ufffd"]
    assert texts.feed(b"\xff\n") == ["\ufffd\n"]


def test_pieces_are_bounded_and_break_at_line_ends() -> None:
    text = "x" * 60_000 + "\n" + "y" * 60_000 + "\n" + "z" * 150_000
    pieces = split(text)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 65536
    assert [len(piece) for piece in pieces[:2]] == [60_001, 60_001]
    assert sum(map(len, Texts().feed(b"w" * 70_000))) == 70_000
