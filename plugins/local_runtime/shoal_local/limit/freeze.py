"""Pausing: every process of a sandbox, by the control groups' freezer or else by signals. Everything here blocks."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shoal.errors import EngineFailure
from shoal_local.limit.cgroups import Cgroups
from shoal_local.run.process import stat_fields
from shoal_local.run.reaper import members
from shoal_local.state.box import Box

CODE: Final = "LOCAL::SANDBOX_PAUSE_FAILED"
STOP_SECONDS: Final = 10.0
_POLL_INTERVAL: Final = 0.001
_STOPPED: Final = ("T", "t", "Z", "X")


def freeze(box: Box, groups: Cgroups) -> None:
    """Stop every process, those born meanwhile included. Raises EngineFailure, and then none stays stopped."""
    if groups.has(box.id):
        groups.freeze(box.id, True)
        return
    box.mark_paused(True)  # before the first signal: after a crash in between, resume still knows what to do
    deadline = time.monotonic() + STOP_SECONDS
    calm = False
    while True:
        running = [pid for pid in members(box, groups) if not _at_rest(pid)]
        if calm and not running:
            return
        # A child born while the processes were listed is missing from the list, so all must be at rest twice.
        calm = not running
        _signal(running, signal.SIGSTOP)
        if time.monotonic() > deadline:
            thaw(box, groups)
            raise EngineFailure(CODE, "processes are born faster than they can be stopped")
        if running:
            time.sleep(_POLL_INTERVAL)


def thaw(box: Box, groups: Cgroups) -> None:
    """Let every process go on."""
    if groups.has(box.id):
        groups.freeze(box.id, False)
        return
    deadline = time.monotonic() + STOP_SECONDS
    while stopped := [pid for pid in members(box, groups) if _held(pid)]:
        # Children first: a parent that runs again might signal or await them.
        _signal(list(reversed(stopped)), signal.SIGCONT)
        if time.monotonic() > deadline:
            raise EngineFailure(CODE, "some processes do not continue")
        time.sleep(_POLL_INTERVAL)
    box.mark_paused(False)


def frozen(box: Box, groups: Cgroups) -> bool:
    """Is it paused now, whoever paused it?"""
    return groups.frozen(box.id) if groups.has(box.id) else box.paused()


def _at_rest(pid: int) -> bool:
    """Whether it runs no code until it is resumed, or has ended.

    A parent in vfork(2) cannot stop before its child, stopped as well, has executed something: its SIGSTOP waits.
    """
    fields = stat_fields(pid)
    return fields is None or fields[0] in _STOPPED or (fields[0] == "D" and _stop_pending(pid))


def _held(pid: int) -> bool:
    fields = stat_fields(pid)
    return fields is not None and (fields[0] in ("T", "t") or _stop_pending(pid))


def _stop_pending(pid: int) -> bool:
    """Does a SIGSTOP wait to take effect? From ShdPnd in /proc/pid/status (proc(5))."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("ShdPnd:"):
                return bool(int(line.split()[1], 16) & 1 << signal.SIGSTOP - 1)
    return False


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
