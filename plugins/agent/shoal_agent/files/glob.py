"""Patterns of a search, matched with the base name of a file.

`*`, `?`, `[a-c]`, `[!a]`, `[^a]`, `{a,b}`, `\\x`, `!(x)`; `**/` in front means any folder. A match takes time
polynomial in the name's length with a small degree: a pattern cannot stall the agent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_PATTERN = 4096
"""Characters of a pattern."""
MAX_NEGATIONS = 16
MAX_ALTERNATIVES = 512
"""Patterns without braces that one may stand for."""


class BadPattern(ValueError):
    """The pattern has no meaning."""


class Glob:
    """One compiled pattern."""

    def __init__(self, pattern: str) -> None:
        """Raises `BadPattern`."""
        if len(pattern) > MAX_PATTERN:
            raise BadPattern(f"the pattern is longer than {MAX_PATTERN} characters")
        if pattern.count("!(") > MAX_NEGATIONS:
            raise BadPattern(f"the pattern has more than {MAX_NEGATIONS} negations")
        self._match = re.compile(_Compiler().source(pattern), re.DOTALL).match

    def matches(self, name: str) -> bool:
        """Whether the base name `name` fits."""
        return self._match(name) is not None


class _Compiler:
    """Makes regular expressions of a pattern and of those inside of it, within one bound."""

    def __init__(self) -> None:
        self._left = MAX_ALTERNATIVES

    def source(self, pattern: str) -> str:
        """An expression for whole names."""
        sources = [self._without_braces(alternative) for alternative in self._expand(pattern)]
        return "|".join(source for source in sources if source) or "(?!)"

    def _expand(self, pattern: str) -> list[str]:
        """The patterns that `pattern` stands for, without braces but for those behind a `!(`."""
        done: list[str] = []
        todo = [pattern]
        while todo:
            current = todo.pop()
            opening = _find(current, 0, "{}!")
            if current[opening : opening + 1] in ("", "!"):
                done.append(current)
                self._left -= 1
            elif current[opening] == "}":
                raise BadPattern("a } without its {")
            else:
                closing, parts = _braces(current, opening + 1)
                todo.extend(current[:opening] + part + current[closing + 1 :] for part in reversed(parts))
            if len(todo) > self._left:
                raise BadPattern(f"the pattern stands for more than {MAX_ALTERNATIVES} simple ones")
        return done

    def _without_braces(self, pattern: str) -> str:
        """Empty where no base name can match."""
        source = self._segment(pattern)
        while source is None and pattern.startswith("**/"):
            pattern = pattern[3:]
            source = self._segment(pattern)
        return source or ""

    def _segment(self, pattern: str) -> str | None:
        """None for a pattern with a slash, which matches nothing."""
        stars: list[list[str]] = [[]]  # what stands between the stars
        slash, at, besides = False, 0, ""
        while at < len(pattern):
            char = pattern[at]
            if char == "*":
                if len(stars) == 1 or stars[-1]:
                    stars.append([])
                at += 1
            elif char == "!":
                besides = f"(?!{self.source(_positive(pattern, at))})"
                stars.append([])
                break
            else:
                end = _token_end(pattern, at)
                slash = slash or char == "/"
                stars[-1].append(_token(pattern[at:end]))
                at = end
        return None if slash else besides + _join(stars)


def _positive(pattern: str, at: int) -> str:
    """What must not match where `!(x)` stands at the index: `before!(x)after` is anything that begins with `before`
    but `beforexafter`, as in execd."""
    if pattern[at + 1 : at + 2] != "(":
        raise BadPattern("a ! without a ( behind it; write \\! for the character")
    end = _negation_end(pattern, at + 2)
    return pattern[:at] + pattern[at + 2 : end] + pattern[end + 1 :]


def _find(pattern: str, start: int, wanted: str) -> int:
    """Where the first of the characters `wanted` stands, outside of escapes and classes; the length if nowhere."""
    at = start
    while at < len(pattern) and pattern[at] not in wanted:
        if pattern[at] == "\\":
            at += 2
        elif pattern[at] == "[":
            at = _class_end(pattern, at)
        else:
            at += 1
    return min(at, len(pattern))


def _braces(pattern: str, start: int) -> tuple[int, list[str]]:
    """Where the braces end whose content begins at `start`, and their alternatives."""
    parts, begin, depth, at = [], start, 0, start
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif char == "{":
            depth += 1
        elif char == "}" and depth:
            depth -= 1
        elif char == "}":
            parts.append(pattern[begin:at])
            return at, parts
        elif char == "," and not depth:
            parts.append(pattern[begin:at])
            begin = at + 1
        at += 1
    raise BadPattern("a { without its }")


def _class_end(pattern: str, start: int) -> int:
    """The index behind the class that begins at `start`."""
    at = start + 1
    if pattern[at : at + 1] in ("!", "^"):
        at += 1
    first = at
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    if at >= len(pattern):
        raise BadPattern("a [ without its ]")
    if at == first:
        raise BadPattern("an empty []")
    return at + 1


def _token_end(pattern: str, at: int) -> int:
    if pattern[at] == "[":
        return _class_end(pattern, at)
    if pattern[at] != "\\":
        return at + 1
    if at + 1 == len(pattern):
        raise BadPattern("a backslash at the end")
    return at + 2


def _token(text: str) -> str:
    if text == "?":
        return "."
    if text[0] == "[":
        return _class(text[1:-1])
    return re.escape(text[-1])


def _class(text: str) -> str:
    negated = text[0] in "!^"
    members: list[str] = []
    for char, escaped in _unescaped(text[1:] if negated else text):
        members.append("-" if char == "-" and not escaped else re.escape(char) if char != "-" else r"\-")
    ranges, at = [], 0
    while at < len(members):
        if at + 2 < len(members) and members[at + 1] == "-":
            low, high = members[at].removeprefix("\\"), members[at + 2].removeprefix("\\")
            if low <= high:
                ranges.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 3
        else:
            ranges.append(r"\-" if members[at] == "-" else members[at])
            at += 1
    if not ranges:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{''.join(ranges)}]"


def _unescaped(text: str) -> Iterator[tuple[str, bool]]:
    escaped = False
    for char in text:
        if char == "\\" and not escaped:
            escaped = True
        else:
            yield char, escaped
            escaped = False


def _negation_end(pattern: str, start: int) -> int:
    depth, at = 0, start
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            at += 1
        elif char == "!" and pattern[at + 1 : at + 2] == "(":
            depth += 1
        elif char == ")":
            if not depth:
                return at
            depth -= 1
        at += 1
    raise BadPattern("a !( without its )")


def _join(stars: list[list[str]]) -> str:
    """Between two stars the first place that fits is as good as any later one, so no match goes back behind it."""
    pieces = ["".join(tokens) for tokens in stars]
    if len(pieces) == 1:
        return rf"(?:{pieces[0]}\Z)"
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
    return rf"(?:{pieces[0]}{middle}.*{pieces[-1]}\Z)"
