"""Processes that outlive the server, and how they are recognised again.

A pid alone proves nothing: numbers are reused. A process is recorded with its start time (field 22 of /proc/pid/stat)
and the machine's boot id, and the pid is believed only while all three match.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from functools import cache
from pathlib import Path

from msgspec import Struct


class Process(Struct, frozen=True):
    """A process for certain: ``started`` is in clock ticks since boot."""

    pid: int
    started: int
    boot: str

    def alive(self) -> bool:
        """Does this very process exist, and not only as a zombie?"""
        if self.boot != boot_id():
            return False
        fields = stat_fields(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in ("Z", "X")


@cache
def boot_id() -> str:
    """The kernel's random id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/pid/stat from the state (field 3) on, so index 1 is the parent and 19 the start; None if gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def identify(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none."""
    fields = stat_fields(pid)
    return None if fields is None else Process(pid, int(fields[19]), boot_id())


def open_pidfd(process: Process) -> int | None:
    """A pidfd of exactly this process; None if it is gone. The caller closes it."""
    try:
        handle = os.pidfd_open(process.pid)
    except (ProcessLookupError, OSError):
        return None
    # The number may have been reused before the call above; checked after it, it cannot be any more.
    if process.alive():
        return handle
    os.close(handle)
    return None


def ended(handle: int, timeout: float | None) -> bool:
    """Wait up to ``timeout`` seconds for the process behind a pidfd to end."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def kill(handle: int, number: signal.Signals) -> None:
    """Signal the process behind a pidfd; gone is fine."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, number)


def end_child(pid: int) -> None:
    """Kill a child of this process and take it out of the process table; one that has gone is fine."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def children(pid: int) -> list[int]:
    """Direct children, as the kernel lists them; empty if the process is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def parents() -> dict[int, int]:
    """pid → parent's pid for every process that /proc shows."""
    table: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat_fields(int(entry.name))) is not None:
            table[int(entry.name)] = int(fields[1])
    return table


def descendants(top: int) -> list[int]:
    """``top`` and everything born of it that still hangs below it, parents before children."""
    below: dict[int, list[int]] = {}
    for pid, parent in parents().items():
        below.setdefault(parent, []).append(pid)
    found = [top]
    for pid in found:
        found.extend(below.get(pid, ()))
    return found
