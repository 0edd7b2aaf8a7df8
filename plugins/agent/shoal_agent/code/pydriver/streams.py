"""sys.stdout and sys.stderr of the driver: every write goes to its descriptor at once."""

from __future__ import annotations

import array
import fcntl
import io
import os
import sys
import termios
import time
from typing import Optional, TextIO

SETTLE = 0.05
"""Seconds that a write to one stream waits for the agent to have read the other."""


class PipeStream(io.TextIOWrapper):
    """Text written to a pipe that the agent reads. Output of child processes on the same descriptor stays in order."""

    last: "Optional[PipeStream]" = None

    def __init__(self, fd: int, name: str) -> None:
        file = open(fd, "wb", closefd=False)  # noqa: SIM115  # it lasts as the process does
        super().__init__(file, encoding="utf-8", errors="backslashreplace", newline="\n")
        self.fd = fd
        self.label = name

    @property
    def name(self) -> str:
        return self.label

    def write(self, text: str) -> int:
        if PipeStream.last is not self:
            if PipeStream.last is not None:
                PipeStream.last.settle()
            PipeStream.last = self
        count = super().write(text)
        self.flush()
        return count

    def settle(self) -> None:
        """Waits until the pipe is empty, so that what is written to the other one is read after it."""
        waiting = array.array("i", [0])
        limit = time.monotonic() + SETTLE
        try:
            while time.monotonic() < limit:
                fcntl.ioctl(self.fd, termios.FIONREAD, waiting)
                if not waiting[0]:
                    return
                time.sleep(0.00005)
        except (OSError, ValueError):
            pass  # no pipe any more: the code has redirected it


def install() -> None:
    """Replaces the standard streams. Standard input is empty, not closed."""
    _set("stdout", PipeStream(1, "<stdout>"))
    _set("stderr", PipeStream(2, "<stderr>"))
    renew()


def renew() -> None:
    """Reopens what the code has closed."""
    if sys.stdin is None or sys.stdin.closed:
        _set("stdin", open(os.devnull))  # noqa: SIM115
    if sys.stdout is None or sys.stdout.closed:
        _set("stdout", PipeStream(1, "<stdout>"))
    if sys.stderr is None or sys.stderr.closed:
        _set("stderr", PipeStream(2, "<stderr>"))


def _set(name: str, stream: TextIO) -> None:
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def flush() -> None:
    """Writes out what the streams hold, whatever the code made of them."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None:
                stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
