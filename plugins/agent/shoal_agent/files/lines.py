"""Lines of a text, cut out of a stream of blocks in flat memory."""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"(?<!\r)\r+\n")
MAX_RETURNS = 64 * 1024
"""Carriage returns in a row that may be a line's end."""


class LineWindow:
    """Passes on the lines `first` .. `first + limit - 1` (counted from 1), joined by LF.

    Carriage returns at the end of a line go, and so does the end of the last line.
    """

    def __init__(self, first: int = 1, limit: int | None = None) -> None:
        self._skip = first - 1
        self._left = limit
        self._held = b""  # the line end before a line that may not come
        self._returns = b""  # carriage returns at a block's end
        self.done = False
        """Whether no later block matters."""

    def feed(self, block: bytes) -> bytes:
        """What `block` adds to the result."""
        if self._skip and not self.done:
            block = self._skipped(block)
        if self._skip or self.done:
            return b""
        block = self._returns + block
        kept = len(block.rstrip(b"\r"))
        if len(block) - kept > MAX_RETURNS:
            kept = len(block)
        block, self._returns = block[:kept], block[kept:]
        return self._emit(_LINE_END.sub(b"\n", block))

    def finish(self) -> bytes:
        """What the end of the text adds: carriage returns alone are an empty last line."""
        return self._held if self._returns and not self.done else b""

    def _skipped(self, block: bytes) -> bytes:
        newlines = block.count(b"\n")
        if newlines < self._skip:
            self._skip -= newlines
            return b""
        at = _nth_newline(block, self._skip)
        self._skip = 0
        return block[at + 1 :]

    def _emit(self, text: bytes) -> bytes:
        if not text:
            return b""
        if self._left is not None:
            newlines = text.count(b"\n")
            if newlines >= self._left:
                self.done = True
                return self._held + text[: _nth_newline(text, self._left)]
            self._left -= newlines
        text = self._held + text
        self._held = b"\n" if text.endswith(b"\n") else b""
        return text[:-1] if self._held else text


def _nth_newline(text: bytes, n: int) -> int:
    at = -1
    for _ in range(n):
        at = text.index(b"\n", at + 1)
    return at


def whole(text: bytes, first: int = 1, limit: int | None = None) -> bytes:
    """The lines of a text that is in memory."""
    window = LineWindow(first, limit)
    return window.feed(text) + window.finish()
