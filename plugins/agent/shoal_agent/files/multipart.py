"""The parts of a ``multipart/form-data`` body, taken out of a stream of blocks in flat memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from shoal_agent.http.errors import INVALID_FILE, ApiError

MAX_PART_HEAD = 32 * 1024
"""Bytes of the header fields of a part."""
MAX_BOUNDARY = 256
_PARAMETER = re.compile(
    r';[ \t]*([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"]*?)[ \t]*(?=;|$)', re.DOTALL
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_TAIL = re.compile(rb"--|[ \t]{0,256}\r?\n")
_TAIL_BEGUN = re.compile(rb"-?|[ \t]{0,256}\r?")


class Begin(NamedTuple):
    """A part begins."""

    name: str
    filename: str


class Data(NamedTuple):
    """Bytes of the part."""

    data: bytes


class End(NamedTuple):
    """The part is complete."""


Event = Begin | Data | End


def boundary(content_type: str | None) -> bytes:
    """The boundary that a Content-Type names. Raises `ApiError` 400 INVALID_FILE where it is no form."""
    media, parameters = _parameters(content_type or "")
    found = parameters.get("boundary", "")
    if media != "multipart/form-data" or not found:
        raise _malformed("the body is no multipart/form-data with a boundary")
    if len(found) > MAX_BOUNDARY or not found.isascii():
        raise _malformed("the boundary is too long")
    return found.encode("ascii")


def _malformed(message: str) -> ApiError:
    return ApiError(400, INVALID_FILE, message)


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """A header value that has parameters: its first word in lower case, and those, the first of each name."""
    word, _, rest = value.partition(";")
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(f";{rest}"):
        text = match[2]
        if text.startswith('"'):
            text = _ESCAPE.sub(r"\1", text[1:-1])
        found.setdefault(match[1].lower(), text)
    return word.strip(" \t").lower(), found


class Parser:
    """Fed with blocks of any size; gives the events of the parts in their order."""

    def __init__(self, separator: bytes) -> None:
        self._first = b"--" + separator
        self._mark = b"\n" + self._first
        self._line = b"\r\n"
        self._buffer = b"\r\n"  # the first boundary stands at the body's beginning, or behind a preamble
        self._state = self._preamble
        self.finished = False
        """Whether the last boundary has come; what follows is ignored."""

    def feed(self, block: bytes) -> list[Event]:
        """The events that `block` completes. Raises `ApiError` 400 INVALID_FILE."""
        events: list[Event] = []
        if not self.finished:
            self._buffer = self._buffer + block if self._buffer else block
            while self._state(events):
                pass
        return events

    def close(self) -> None:
        """The body has ended. Raises `ApiError` 400 INVALID_FILE if the last boundary is missing."""
        if not self.finished:
            raise _malformed("the multipart body ends before its last boundary")

    def _preamble(self, events: list[Event]) -> bool:
        at, end = self._boundary()
        if end:
            return self._enter(end)
        self._buffer = self._buffer[at:]
        return False

    def _content(self, events: list[Event]) -> bool:
        at, end = self._boundary()
        if at:
            events.append(Data(self._buffer[:at]))
        if end:
            events.append(End())
            return self._enter(end)
        self._buffer = self._buffer[at:]
        return False

    def _boundary(self) -> tuple[int, int]:
        """Where the next boundary begins and ends. With an end of 0 more bytes must come; those before it are data."""
        newline = self._buffer.find(b"\n")  # there is hardly a cheaper search, and no mark without one
        start = max(newline - 1, 0)
        while newline >= 0 and (at := self._buffer.find(self._mark, start)) >= 0:
            behind = at + len(self._mark)
            tail = _TAIL.match(self._buffer, behind)
            if tail is not None:
                return at, tail.end()
            if _TAIL_BEGUN.fullmatch(self._buffer, behind) is not None:
                return at, 0
            start = at + 1
        return len(self._buffer) - self._begun(), 0

    def _begun(self) -> int:
        """How many bytes at the end of the buffer may begin a boundary."""
        start = max(0, len(self._buffer) - len(self._mark) + 1)
        while (at := self._buffer.find(self._mark[:1], start)) >= 0:
            if self._mark.startswith(self._buffer[at:]):
                return len(self._buffer) - at
            start = at + 1
        return 0

    def _enter(self, end: int) -> bool:
        """Behind a boundary: the head of a part, or the end of the body."""
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        if line.endswith(b"--"):
            self.finished = True
            self._buffer = b""
            return False
        self._line = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        self._mark = self._line + self._first
        self._state = self._head
        return True

    def _head(self, events: list[Event]) -> bool:
        blank = self._line * 2
        end = self._buffer.find(blank)
        if self._buffer.startswith(self._line):
            head, rest = b"", self._buffer[len(self._line) :]
        elif 0 <= end <= MAX_PART_HEAD:
            head, rest = self._buffer[:end], self._buffer[end + len(blank) :]
        elif len(self._buffer) > MAX_PART_HEAD:
            raise _malformed(f"the head of a part is larger than {MAX_PART_HEAD} bytes")
        else:
            return False
        events.append(_begin(head))
        self._buffer = self._line + rest  # an empty part has its boundary right behind the head
        self._state = self._first_bytes
        return True

    def _first_bytes(self, events: list[Event]) -> bool:
        if len(self._buffer) < len(self._mark) and self._mark.startswith(self._buffer):
            return False
        if not self._buffer.startswith(self._mark):
            self._buffer = self._buffer[len(self._line) :]
        self._state = self._content
        return True


def _begin(head: bytes) -> Begin:
    """The names that a part's Content-Disposition holds; empty where it holds none."""
    for line in _unfolded(head):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            kind, parameters = _parameters(value.strip())
            if kind != "form-data":
                break
            return Begin(parameters.get("name", ""), parameters.get("filename") or parameters.get("filename*", ""))
    return Begin("", "")


def _unfolded(head: bytes) -> Iterator[str]:
    return iter(re.sub(r"\r?\n[ \t]+", " ", head.decode("utf-8", "replace")).splitlines())
