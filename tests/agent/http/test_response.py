"""Answers as bytes."""

from __future__ import annotations

import json

import pytest

from shoal_agent.http.response import dump


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\udcffb", "a\ufffdb"),
        ("\udcf0\udc9f", "\ufffd\ufffd"),
        ("\ud800", "\ufffd"),
        ("\ud800\ud800\U0001f600\udcff", "\ufffd\ufffd\U0001f600\ufffd"),
        ("\\udcff", "\\udcff"),
        ("\\\\ud83d\\ude00\\\udcff", "\\\\ud83d\\ude00\\\ufffd"),
        ("\u2028é", "\u2028é"),
    ],
)
def test_json_holds_no_half_of_a_surrogate_pair(text: str, seen: str) -> None:
    assert json.loads(dump({text: text})) == {seen: seen}
    assert dump(text).isascii()
