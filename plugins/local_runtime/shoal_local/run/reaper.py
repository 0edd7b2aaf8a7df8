"""Ending sandboxes and finding what is left of them. Everything here blocks."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from shoal.errors import EngineFailure
from shoal_local.limit.cgroups import Cgroups
from shoal_local.run.process import descendants, ended, identify, kill, open_pidfd
from shoal_local.state.box import Box
from shoal_local.state.trees import remove_tree

log: Final = structlog.get_logger("shoal.local")

CODE: Final = "LOCAL::SANDBOX_DELETE_FAILED"
KILL_SECONDS: Final = 20.0
_POLL_INTERVAL: Final = 0.002


def stop(box: Box, groups: Cgroups, grace: float) -> None:
    """End every process of the sandbox, after SIGTERM and ``grace`` seconds if any. Raises EngineFailure."""
    if grace > 0 and box.locked():
        _terminate(box, groups, grace)
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        frame, members = _frame(box), groups.pids(box.id) or []
        if not frame and not members and not box.locked():
            return
        _kill(frame, members)
        if groups.has(box.id) and groups.frozen(box.id):
            groups.freeze(box.id, False)  # version 1 delivers no SIGKILL to what is frozen
        _reap(frame)
        if time.monotonic() > deadline:
            raise EngineFailure(CODE, "a process of the sandbox does not end", retry_after=1.0)
        time.sleep(_POLL_INTERVAL)


def discard(box: Box, groups: Cgroups, trash: Path) -> None:
    """Remove all files of a sandbox without processes; moved aside first, so that it is gone in one step.

    What cannot be removed now stays in ``trash`` for a later sweep. Raises EngineFailure if it cannot be moved either.
    """
    groups.remove(box.id)
    aside = trash / f"{box.id}-{uuid4().hex[:8]}"
    try:
        box.path.rename(aside)
    except FileNotFoundError:
        return
    except OSError:
        aside = box.path  # no space even for the new name
    try:
        remove_tree(aside)
    except OSError as error:
        log.warning("files are left for the next sweep", sandbox_id=box.id, error=str(error), path=str(aside))
        if aside == box.path:
            raise EngineFailure(CODE, f"files cannot be removed: {error.strerror}", retry_after=5.0) from None


def members(box: Box, groups: Cgroups) -> list[int]:
    """Every process of the sandbox that can be found, the frame included, parents before children."""
    found = groups.pids(box.id)
    if found is not None:
        return found
    pids: list[int] = []
    for pid in _frame(box):
        pids.extend(other for other in descendants(pid) if other not in pids)
    return pids


def _terminate(box: Box, groups: Cgroups, grace: float) -> None:
    started = box.started()
    spare = {p.pid for p in (started.top, started.init) if p is not None} if started is not None else set()
    for pid in members(box, groups):
        if pid not in spare:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    if groups.has(box.id) and groups.frozen(box.id):
        groups.freeze(box.id, False)
    top = None if started is None else open_pidfd(started.top)
    if top is not None:
        try:
            ended(top, grace)
        finally:
            os.close(top)


def _frame(box: Box) -> list[int]:
    """Pids that belong to the sandbox for certain: recorded ones that still match, else what /proc shows of it."""
    started = box.started()
    if started is not None:
        found = [p.pid for p in (started.init, started.top, started.net) if p is not None and p.alive()]
        if found or not box.locked():
            return found + _strays(box) if started.init is None else found
    if started is None:
        net = box.net()
        return _strays(box) + ([net.pid] if net is not None and net.alive() else [])
    return _strays(box) if box.locked() else []


def _strays(box: Box) -> list[int]:
    """Processes whose environment names this sandbox: for what was not recorded, and where nothing isolates."""
    marks = (f"SHOAL_SANDBOX={box.id}".encode(), f"OPENSANDBOX_ID={box.id}".encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if not set(marks).isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


def _kill(frame: list[int], others: list[int]) -> None:
    for pid in [*frame, *others]:
        process = identify(pid)
        handle = None if process is None else open_pidfd(process)
        if handle is not None:
            kill(handle, signal.SIGKILL)
            os.close(handle)


def _reap(frame: list[int]) -> None:
    """Wait for the frame to go, and collect it where it is this process's child."""
    for pid in frame:
        process = identify(pid)
        handle = None if process is None else open_pidfd(process)
        if handle is not None:
            ended(handle, 1.0)
            os.close(handle)
        collect(pid)


def collect(pid: int) -> None:
    """Let a child that has ended go from the process table; not a child, or not ended, is fine."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
