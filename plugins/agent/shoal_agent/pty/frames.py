"""Frames of the terminal's sockets."""

from __future__ import annotations

import json
import signal
from typing import Any

STDIN, REPLAY = 0, 3
INVALID_FRAME, START_FAILED, STDIN_WRITE_FAILED = "INVALID_FRAME", "START_FAILED", "STDIN_WRITE_FAILED"
SIGNALS = {number.name: number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT)}
SIGNALS["SIGHUP"] = signal.SIGHUP
MAX_CELLS = 65535


def text(kind: str, **fields: Any) -> str:
    """A text frame; they end in a line feed."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":")) + "\n"


def error(message: str, code: str) -> str:
    return text("error", error=message, code=code)


def output(channel: int, data: bytes) -> bytes:
    """Output of one channel: 1 is stdout, 2 is stderr."""
    return bytes((channel,)) + data


def replay(offset: int, data: bytes) -> bytes:
    """Output from an absolute offset on."""
    return bytes((REPLAY,)) + offset.to_bytes(8) + data


def parse(data: bytes) -> dict[str, Any] | None:
    """The object of a client's text frame; None for what is none, which is ignored."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("type", ""), str):
        return None
    return found


def cells(value: Any) -> int:
    """A number of columns or rows; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_CELLS else 0
