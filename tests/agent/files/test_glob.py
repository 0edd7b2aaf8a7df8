"""Patterns of a search: a table of results seen on execd, and a matcher that is slow and obvious to compare with."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_agent.files.glob import BadPattern, Glob

NAMES = [
    "!(a)",
    "!z",
    "[x]",
    "a)b",
    "a*b",
    "a.txt",
    "aXc",
    "a]",
    "abc",
    "abcabc",
    "b.txt",
    "f",
    "x!y",
    "x,y",
    "{q}",
    "é",
]


def found(pattern: str) -> list[str]:
    glob = Glob(pattern)
    return [name for name in NAMES if glob.matches(name)]


def without(*names: str) -> list[str]:
    return [name for name in NAMES if name not in names]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", NAMES),
        ("**", NAMES),
        ("a?c", ["aXc", "abc"]),
        ("?", ["f", "é"]),
        ("[a-c]*", ["a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc", "b.txt"]),
        ("[!a]*", ["!(a)", "!z", "[x]", "b.txt", "f", "x!y", "x,y", "{q}", "é"]),
        ("[^a]*", ["!(a)", "!z", "[x]", "b.txt", "f", "x!y", "x,y", "{q}", "é"]),
        ("[-a]*", ["a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc"]),
        ("[a-]*", ["a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc"]),
        ("[z-a]", []),
        ("[[:alpha:]]*", ["a]"]),
        ("[é]", ["é"]),
        ("[x!]*", ["!(a)", "!z", "x!y", "x,y"]),
        ("[[]x]", ["[x]"]),
        ("[\\[]x]", ["[x]"]),
        ("{a,b}.txt", ["a.txt", "b.txt"]),
        ("{a.txt,{b,abc}*}", ["a.txt", "abc", "abcabc", "b.txt"]),
        ("{a,}.txt", ["a.txt"]),
        ("{[a],b}*", ["a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc", "b.txt"]),
        ("{\\a,b}.txt", ["a.txt", "b.txt"]),
        ("{a\\,b,x\\,y}", ["x,y"]),
        ("{}", []),
        ("a\\*b", ["a*b"]),
        ("\\a.txt", ["a.txt"]),
        ("x\\!y", ["x!y"]),
        ("A.TXT", []),
        ("**/a.txt", ["a.txt"]),
        ("**/**/a.txt", ["a.txt"]),
        ("{**/abc,f}", ["abc", "f"]),
        ("**/{abc,f}", ["abc", "f"]),
        ("{a/b,abc}", ["abc"]),
        ("/a.txt", []),
        ("./a.txt", []),
        ("x/**/a.txt", []),
        ("**//abc", []),
        ("a[/]", []),
        ("@(abc)", []),
        ("!(a.txt)", without("a.txt")),
        ("!(a*)", without("a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc")),
        ("!(a*)*", without("a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc")),
        ("!(a.txt|abc)", NAMES),
        ("a!(b)c", ["a)b", "a*b", "a.txt", "aXc", "a]", "abcabc"]),
        ("!(a))b", without("a)b")),
        ("!(a\\)b)", without("a)b")),
        ("!({a,b}.txt)", without("a.txt", "b.txt")),
        ("!(**/abc)", without("abc")),
        ("!(a/b)", NAMES),
        ("!(!(a*))", ["a)b", "a*b", "a.txt", "aXc", "a]", "abc", "abcabc"]),
        ("*!(b)", without("a)b", "a*b")),
        ("{!(a*),abc}", ["!(a)", "!z", "[x]", "abc", "b.txt", "f", "x!y", "x,y", "{q}", "é"]),
    ],
)
def test_the_same_names_as_execd(pattern: str, names: list[str]) -> None:
    assert found(pattern) == names


@pytest.mark.parametrize(
    "pattern",
    ["[", "a[", "[]", "[]a]", "[a", "[!]", "[^]", "[a-", "[\\", "[[", "{a", "{a,b", "a}", "\\", "*\\", "!a", "a!",
     "x!y", "!(a.txt", "{!,a}", "{x,[}", "{[,],b}*", "sub/[", "**/["],
)  # fmt: skip
def test_patterns_without_a_meaning(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Glob(pattern)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("*a" * 100 + "b", "a" * 255), ("{*a,*b}" * 8 + "c", "ab" * 120), ("!(" + "*a" * 60 + "b)", "a" * 255)],
)
def test_no_pattern_stalls_the_agent(pattern: str, name: str) -> None:
    """By backtracking the first of these takes longer than the universe is old."""
    began = time.process_time()
    Glob(pattern).matches(name)
    assert time.process_time() - began < 20


def test_braces_are_bounded() -> None:
    with pytest.raises(BadPattern, match="more than"):
        Glob("{a,b}" * 40)


@cache
def obvious(pattern: str, name: str) -> bool:
    """Literals, `?`, `*` and one level of braces, tried one after the other."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return obvious(pattern[1:], name) or (bool(name) and obvious(pattern, name[1:]))
    if pattern[0] == "{":
        inside, _, rest = pattern[1:].partition("}")
        return any(obvious(part + rest, name) for part in inside.split(","))
    return bool(name) and pattern[0] in ("?", name[0]) and obvious(pattern[1:], name[1:])


pieces = st.one_of(
    st.sampled_from(["a", "b", "?", "*", "*"]),
    st.lists(st.text("ab?*", max_size=2), min_size=1, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"),
)


@given(st.lists(pieces, max_size=6).map("".join), st.text("abc", max_size=7))
def test_as_the_obvious_matcher(pattern: str, name: str) -> None:
    assert Glob(pattern).matches(name) == obvious(pattern, name)
