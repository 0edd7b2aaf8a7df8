"""The events of a run of code: `docs/wire/execd.md` section 3. The stream adds their time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Event = dict[str, Any]
Emit = Callable[[Event], Awaitable[None]]
"""Takes an event. It waits while the client is slow, and does nothing once the client is gone."""

MAX_TEXT_LENGTH = 64 * 1024
"""Characters of one piece of output."""


def output(stream: str, text: str) -> Event:
    """A piece of ``stdout`` or ``stderr``."""
    return {"type": stream, "text": text}


def result(data: dict[str, Any]) -> Event:
    """A value. Clients read its plain text under either name."""
    results = {"text": data["text/plain"], **data} if "text/plain" in data else dict(data)
    return {"type": "result", "results": results}


def count(number: int) -> Event:
    """The number of the run that made a value."""
    return {"type": "execution_count", "execution_count": number}


def failure(ename: str, evalue: str, traceback: list[str]) -> Event:
    """What ends a run that failed."""
    return {"type": "error", "error": {"ename": ename, "evalue": evalue, "traceback": traceback}}


def exit_failure(code: int) -> Event:
    """The failure of a shell's code that ends with the exit code `code`."""
    return failure("CommandExecError", str(code), [f"exit status {code}"])


def interrupted(evalue: str) -> Event:
    """What ends a run of a shell that was interrupted."""
    return failure("KeyboardInterrupt", evalue, ["signal: interrupt"])


def died(language: str, code: int) -> Event:
    """What ends a run whose interpreter is gone. `code` is negative for a signal."""
    how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    evalue = f"the {language} interpreter {how}; its state is lost, the next run starts a new one"
    return failure("InterpreterDied", evalue, [evalue])
