"""Pausing: every process of a sandbox, by the control groups' freezer or else by signals. Everything here blocks."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

from shoal.errors import EngineFailure
from shoal_local.box import Box
from shoal_local.cgroups import Cgroups
from shoal_local.process import stat_fields
from shoal_local.reaper import members

CODE: Final = "LOCAL::SANDBOX_PAUSE_FAILED"
STOP_SECONDS: Final = 10.0
_POLL: Final = 0.001
_STOPPED: Final = ("T", "t", "Z", "X")


def freeze(box: Box, groups: Cgroups) -> None:
    """Stop every process, those born meanwhile included. Raises EngineFailure, and then none stays stopped."""
    if groups.has(box.id):
        groups.freeze(box.id, True)
        return
    box.mark_paused(True)  # before the first signal: after a crash in between, resume still knows what to do
    deadline = time.monotonic() + STOP_SECONDS
    while running := [pid for pid in members(box, groups) if _state(pid) not in _STOPPED]:
        _signal(running, signal.SIGSTOP)
        if time.monotonic() > deadline:
            thaw(box, groups)
            raise EngineFailure(CODE, "processes are born faster than they can be stopped")
        time.sleep(_POLL)


def thaw(box: Box, groups: Cgroups) -> None:
    """Let every process go on."""
    if groups.has(box.id):
        groups.freeze(box.id, False)
        return
    deadline = time.monotonic() + STOP_SECONDS
    while stopped := [pid for pid in members(box, groups) if _state(pid) in ("T", "t")]:
        # Children first: a parent that runs again might signal or await them.
        _signal(list(reversed(stopped)), signal.SIGCONT)
        if time.monotonic() > deadline:
            raise EngineFailure(CODE, "some processes do not continue")
        time.sleep(_POLL)
    box.mark_paused(False)


def frozen(box: Box, groups: Cgroups) -> bool:
    """Is it paused now, whoever paused it?"""
    return groups.frozen(box.id) if groups.has(box.id) else box.paused()


def _state(pid: int) -> str:
    fields = stat_fields(pid)
    return "X" if fields is None else fields[0]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
