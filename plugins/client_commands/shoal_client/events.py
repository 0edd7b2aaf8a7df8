"""A command's output, as the agent streams it (docs/wire/execd.md section 3)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from msgspec import Struct

from shoal_client.connection import ClientError

UNKNOWN: Final = 255
_SIGNALS: Final = {
    "hangup": 129,
    "interrupt": 130,
    "quit": 131,
    "aborted": 134,
    "killed": 137,
    "segmentation fault": 139,
    "broken pipe": 141,
    "terminated": 143,
}
"""Signals by the names that the agent uses, as shells have them in exit codes."""


class CommandOutcome(Struct, frozen=True):
    """How a command ended.

    Attributes:
        code: its exit code; 128 and the signal's number for one that a signal ended.
        why: what the agent says of an end that has no exit code; empty else.
    """

    code: int
    why: str = ""


def follow(lines: Iterable[bytes], begun: Callable[[str], None], printed: Callable[[str, str], None]) -> CommandOutcome:
    """Read a stream to its end.

    Args:
        lines: those of the answer's body.
        begun: called with the command's id.
        printed: called with ``stdout`` or ``stderr`` and the text, its line end included.

    Raises ClientError if the stream ends without an outcome.
    """
    outcome: CommandOutcome | None = None
    for event in _events(lines):
        match event.get("type"):
            case "init":
                begun(str(event.get("text", "")))
            case "stdout" | "stderr" as stream:
                text = str(event.get("text", ""))
                printed(stream, text if text.endswith("\n") else text + "\n")
            case "error":
                outcome = _failed(event.get("error") or {})
            case "execution_complete":
                outcome = outcome or CommandOutcome(0)
    if outcome is None:
        raise ClientError("the command's output broke off; it may be running still")
    return outcome


def _events(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        text = line.strip().removeprefix(b"data:").strip()
        if text.startswith(b"{"):
            yield json.loads(text)


def _failed(error: dict[str, Any]) -> CommandOutcome:
    value = str(error.get("evalue", ""))
    try:
        code = int(value)
    except ValueError:
        return CommandOutcome(126, value)
    if 0 < code < 256:
        return CommandOutcome(code)
    why = ", ".join(map(str, error.get("traceback") or []))
    return CommandOutcome(_SIGNALS.get(why.removeprefix("signal: "), UNKNOWN), why)
