"""WebSocket frames (RFC 6455 section 5): data frames are passed over, control frames taken out. Without I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

CONTINUATION: Final = 0
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
_MESSAGE: Final = frozenset({1, 2})  # text, binary
_DATA: Final = _MESSAGE | {CONTINUATION}
_RSV1: Final = 0x40
_CONTROL: Final = frozenset({CLOSE, PING, PONG})

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
ABNORMAL: Final = 1006  # never sent: no close was heard
INVALID_DATA: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013
_REASON_BYTES: Final = 123


class Violation(Exception):
    """The other side broke the protocol, or a limit: the leg ends with ``code``."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class Control(NamedTuple):
    """A control frame, unmasked."""

    opcode: int
    payload: bytes


class FrameReader:
    """What one side sends.

    Args:
        masked: whether its frames must be masked, as a client's are, or must not be.
        limit: bytes of one message; 0 = any. Compressed ones count as they are sent.
        compressed: permessage-deflate was negotiated, so that RSV1 has a meaning (RFC 7692 section 6).

    Attributes:
        left: bytes of the present data frame still to come; 0 between frames.
    """

    __slots__ = ("_compressed", "_fragmented", "_limit", "_mask_bit", "_message", "_pending", "left")

    def __init__(self, *, masked: bool, limit: int, compressed: bool) -> None:
        self._mask_bit = 0x80 if masked else 0
        self._limit = limit
        self._compressed = compressed
        self._pending = b""
        self._fragmented = False
        self._message = 0
        self.left = 0

    def feed(self, data: bytes) -> list[bytes | Control | Violation]:
        """Runs of data frames, or pieces of one, as they came; and control frames, in order.

        A header or a control frame that is not whole yet waits for the rest; what is returned never ends within one.
        Nothing follows a close or a violation.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        found: list[bytes | Control | Violation] = []
        start, size = 0, len(data)
        position = min(self.left, size)
        self.left -= position
        while position < size:
            try:
                header = self._header(data, position, size)
            except Violation as violation:
                return [*found, data[start:position], violation] if position > start else [*found, violation]
            if header is None:
                break
            opcode, offset, length = header
            if opcode & 8:
                end = position + offset + length
                if end > size:
                    break
                if position > start:
                    found.append(data[start:position])
                found.append(Control(opcode, self._unmasked(data, position + offset, end)))
                if opcode == CLOSE:
                    return found
                start = position = end
            else:
                position += offset + length
                if position > size:
                    self.left, position = position - size, size
        if position > start:
            found.append(data[start:position] if position - start < size else data)
        self._pending = data[position:]
        return found

    def _header(self, data: bytes, position: int, size: int) -> tuple[int, int, int] | None:
        """Opcode, length of the header, length of the payload; None if the header is not whole."""
        if size - position < 2:
            return None
        first, second = data[position], data[position + 1]
        opcode, length, offset = first & 15, second & 127, 2
        if length > 125:
            offset = 4 if length == 126 else 10
            if size - position < offset:
                return None
            length = int.from_bytes(data[position + 2 : position + offset], "big")
        if self._mask_bit:
            offset += 4
            if size - position < offset:
                return None
        if second & 0x80 != self._mask_bit:
            raise Violation(PROTOCOL_ERROR, "a frame is masked, or not masked, wrongly")
        self._check(first, opcode, length)
        return opcode, offset, length

    def _check(self, first: int, opcode: int, length: int) -> None:
        final, reserved = first & 0x80, first & 0x70
        if reserved and not (reserved == _RSV1 and self._compressed and opcode in _MESSAGE):
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set")
        if opcode in _CONTROL:
            if not final or length > 125:
                raise Violation(PROTOCOL_ERROR, "a control frame is fragmented, or too long")
            return
        if opcode not in _DATA:
            raise Violation(PROTOCOL_ERROR, "an opcode that does not exist")
        if (opcode == CONTINUATION) != self._fragmented:
            raise Violation(PROTOCOL_ERROR, "a message begins within another, or continues none")
        if length >> 63:
            raise Violation(PROTOCOL_ERROR, "a length with its first bit set")
        self._message += length
        if self._limit and self._message > self._limit:
            raise Violation(TOO_BIG, f"a message of more than {self._limit} bytes")
        self._fragmented = not final
        if final:
            self._message = 0

    def _unmasked(self, data: bytes, start: int, end: int) -> bytes:
        payload = data[start:end]
        return masked(payload, data[start - 4 : start]) if self._mask_bit else payload


def masked(payload: bytes, key: bytes) -> bytes:
    """``payload`` masked, or unmasked, by ``key`` of four bytes. For control frames: they are short."""
    return bytes(byte ^ key[index & 3] for index, byte in enumerate(payload))


def frame(opcode: int, payload: bytes, key: bytes | None) -> bytes:
    """A whole control frame; masked where ``key`` is given."""
    if key is None:
        return bytes((0x80 | opcode, len(payload))) + payload
    return bytes((0x80 | opcode, 0x80 | len(payload))) + key + masked(payload, key)


def close_payload(code: int | None, reason: str = "") -> bytes:
    """The payload of a close frame; a reason is cut to what fits, at a character's end."""
    if code is None:
        return b""
    text = reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore").encode()
    return code.to_bytes(2, "big") + text


def read_close(payload: bytes) -> tuple[int | None, str]:
    """Code and reason of a close frame; None for no code. Raises Violation for what must not be sent."""
    if not payload:
        return None, ""
    if len(payload) == 1:
        raise Violation(PROTOCOL_ERROR, "a close frame of one byte")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise Violation(PROTOCOL_ERROR, "a close code that must not be sent")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise Violation(INVALID_DATA, "a close reason that is not UTF-8") from None


def is_sendable(code: int) -> bool:
    """Whether a close frame may hold it, and be passed on with it (docs/wire/api.md section 16)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
