"""From a sandbox's directory to the workload that the kernel gets."""

from __future__ import annotations

import signal
from datetime import datetime

from shoal.models.workload import Phase, Workload
from shoal_local.limit.cgroups import Cgroups
from shoal_local.limit.freeze import frozen
from shoal_local.state.box import Box, Spec, Started

HOST = "127.0.0.1"
"""Where sandboxes are that share this machine's network."""


def observe(box: Box, groups: Cgroups) -> Workload | None:
    """The workload as the disk and the kernel show it now; None if there is none. Costs a few file reads. Blocks."""
    spec = box.spec()
    if spec is None:
        return None
    started = box.started()
    if started is None:
        # Half made: without its plan nobody can complete it, so it is not offered for adoption.
        message = "The sandbox is being started."
        return Workload(id=box.id, phase=Phase.PENDING, reason="PROCESS_STARTING", message=message, labels=spec.labels)
    if alive(box, started):
        # While a snapshot is being taken, it stands still for a moment, which is nobody's pause.
        return _running(spec, started, paused=frozen(box, groups) and not box.captured())
    return _ended(box, spec, oom=groups.oom_killed(box.id))


def alive(box: Box, started: Started) -> bool:
    """Does the sandbox's frame live? Its lock may have been let go of from inside; the process itself is the proof."""
    return box.locked() or started.top.alive()


def _running(spec: Spec, started: Started, *, paused: bool) -> Workload:
    return Workload(
        id=spec.id,
        phase=Phase.PAUSED if paused else Phase.RUNNING,
        reason="PROCESS_PAUSED" if paused else "PROCESS_RUNNING",
        message="The sandbox's processes are frozen." if paused else "The sandbox's process is running.",
        since=started.since or started.at,
        host=HOST if spec.network == "host" else None,
        tunnelled=spec.network != "host",
        labels=spec.labels,
        adoption=spec.adoption,
    )


def _ended(box: Box, spec: Spec, *, oom: bool) -> Workload:
    ended = box.ended()
    phase, reason, message = _outcome(ended, oom=oom)
    since = None if ended is None else ended[1]
    return Workload(
        id=spec.id,
        phase=phase,
        reason=reason,
        message=message,
        since=since,
        labels=spec.labels,
        adoption=spec.adoption,
    )


def _outcome(ended: tuple[int, datetime] | None, *, oom: bool) -> tuple[Phase, str, str]:
    if ended is not None and ended[0] == 0:
        return Phase.EXITED, "PROCESS_EXITED", "The sandbox's process ended with exit code 0."
    how = "was killed, or the machine restarted" if ended is None else describe_exit(ended[0])
    if oom:
        return Phase.FAILED, "OOM_KILLED", f"The sandbox exceeded its memory limit; its process {how}."
    return Phase.FAILED, "PROCESS_EXITED_ERROR", f"The sandbox's process {how}."


def describe_exit(code: int) -> str:
    """``ended with exit code 3`` or ``was ended by SIGTERM``; shells count 128 + signal."""
    if code > 128:
        try:
            return f"was ended by {signal.Signals(code - 128).name} (exit code {code})"
        except ValueError:
            pass
    return f"ended with exit code {code}"
