"""What a shell's ``export -p`` prints, read as the shell itself would read it. Bash, dash and BusyBox."""

from __future__ import annotations

import re

_START = re.compile(rb"(?:declare -[A-Za-z]+|export|typeset -[A-Za-z]+) ([A-Za-z_][A-Za-z0-9_]*)")
_ANSI = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|c(.)|(.))", re.DOTALL)
_LETTERS = {
    b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"E": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
    b"v": b"\v",
}  # fmt: skip
_ESCAPED_IN_DOUBLE = b'$`"\\'


class Malformed(ValueError):
    """It is not what a shell prints."""


def parse(data: bytes) -> dict[bytes, bytes]:
    """Names and values; a name that is exported without a value is left out. Raises `Malformed`."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        start = _START.match(data, position)
        if start is None:
            raise Malformed
        position = start.end()
        if data[position : position + 1] == b"=":
            found[start[1]], position = _word(data, position + 1)
        if data[position : position + 1] != b"\n":
            raise Malformed
        position += 1
    return found


def _word(data: bytes, position: int) -> tuple[bytes, int]:
    """A shell word that begins there, and where it ends: at a line feed outside of quotes."""
    parts: list[bytes] = []
    while position < len(data) and data[position : position + 1] != b"\n":
        if data.startswith(b"$'", position):
            end = _quote_end(data, position + 2, b"'")
            parts.append(_ANSI.sub(_ansi, data[position + 2 : end]))
        elif data.startswith(b"'", position):
            end = data.find(b"'", position + 1)
            parts.append(data[position + 1 : end])
        elif data.startswith(b'"', position):
            end = _quote_end(data, position + 1, b'"')
            parts.append(_double(data[position + 1 : end]))
        else:
            escaped = data.startswith(b"\\", position)
            end = position + escaped
            parts.append(data[end : end + 1])
        if end < position:
            raise Malformed
        position = end + 1
    return b"".join(parts), position


def _quote_end(data: bytes, position: int, quote: bytes) -> int:
    while (character := data[position : position + 1]) != quote:
        if not character:
            raise Malformed
        position += 2 if character == b"\\" else 1
    return position


def _double(text: bytes) -> bytes:
    def literal(match: re.Match[bytes]) -> bytes:
        if match[1] == b"\n":
            return b""
        return match[1] if match[1] in _ESCAPED_IN_DOUBLE else match[0]

    return re.sub(rb"\\(.)", literal, text, flags=re.DOTALL)


def _ansi(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, control, other = match.groups()
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if control is not None:
        return bytes([control[0] & 0x1F])
    return _LETTERS.get(other, other)
