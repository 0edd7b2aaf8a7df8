"""Output in lines, as its events carry it: `docs/wire/execd.md` section 4."""

from __future__ import annotations

import codecs
import re

MAX_LINE_BYTES = 1_000_000
"""Bytes of a line that still arrives as one event; some clients refuse events of more than 4 MiB."""
PIECE_BYTES = 64 * 1024
"""Bytes of each event of a longer line."""
_ENDS = re.compile(rb"\r\n|\n|\r")


def _bytewise(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("shoal-bytewise", _bytewise)


class LineSplitter:
    """Takes bytes as they come, gives texts of lines without their ends; an empty line is a line feed.

    A line ends with LF, CR or CRLF, also when the two are written apart. A byte that is no UTF-8 becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._after_cr = False
        self._begun = False

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        if self._after_cr and data:
            self._after_cr = False
            if data[:1] == b"\n":
                data = data[1:]
        if not data:
            return []
        *lines, rest = _ENDS.split(data)
        if not lines:
            self._rest += rest
            return self._pieces()
        self._after_cr = data[-1:] == b"\r"
        lines[0] = bytes(self._rest) + lines[0]
        self._rest = bytearray(rest)
        found = self._first(lines[0])
        for line in lines[1:]:
            found += _texts(line) if line else ("\n",)
        self._begun = False
        return found + self._pieces()

    def _first(self, line: bytes) -> list[str]:
        if line:
            return _texts(line)
        return [] if self._begun else ["\n"]  # the end of a line that was shown already is no line

    def _pieces(self) -> list[str]:
        """What of a line without end is too long to wait for its end."""
        found: list[str] = []
        if len(self._rest) > MAX_LINE_BYTES:
            keep = len(self._rest) - len(self._rest) % PIECE_BYTES
            keep -= _incomplete(self._rest[:keep])
            found = _split(bytes(self._rest[:keep]))
            del self._rest[:keep]
            self._begun = True
        return found

    def waits(self) -> bool:
        """Whether a line without end is held back."""
        return bool(self._rest)

    def flush(self) -> list[str]:
        """The line without end as far as it got; half a character stays. Its end will not make another line."""
        keep = len(self._rest) - _incomplete(self._rest)
        data = bytes(self._rest[:keep])
        if not data:
            return []
        del self._rest[:keep]
        self._begun = True
        return _texts(data)

    def finish(self) -> list[str]:
        """The last line if it has no end."""
        data = bytes(self._rest)
        self._rest.clear()
        return _texts(data) if data else []


def _texts(line: bytes) -> list[str]:
    return [line.decode("utf-8", "shoal-bytewise")] if len(line) <= MAX_LINE_BYTES else _split(line)


def _split(data: bytes) -> list[str]:
    found, start = [], 0
    while start < len(data):
        end = min(start + PIECE_BYTES, len(data))
        if end < len(data):
            end -= _incomplete(data[start:end])
        found.append(data[start:end].decode("utf-8", "shoal-bytewise"))
        start = end
    return found


def _incomplete(data: bytes | bytearray) -> int:
    """How many bytes at the end begin a UTF-8 character that is not complete: 0 to 3."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4 if byte < 0xF5 else 0  # no character begins so
            return back if length > back else 0
        if byte < 0x80:
            return 0
    return 0
