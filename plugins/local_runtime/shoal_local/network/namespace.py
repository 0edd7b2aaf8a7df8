"""The network namespace of a sandbox, found by its processes, also by a server that did not start it."""

from __future__ import annotations

import os
from contextlib import suppress

from shoal.errors import EngineFailure
from shoal_local.network.client import CODE
from shoal_local.state.box import Started


def open_namespace(pid: int) -> int | None:
    """The network namespace of a process, if it is not this process's own; None if it is, or the process is gone."""
    with suppress(OSError):
        handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if os.fstat(handle).st_ino != os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116 - in a hurry
            return handle
        os.close(handle)
    return None


def of(started: Started) -> int:
    """The namespace of a running sandbox; the caller closes it. Raises EngineFailure if there is none."""
    for process in (started.top, started.init):
        handle = open_namespace(process.pid) if process is not None else None
        # The number may have been reused before it was opened; seen alive after that, it has not been.
        if handle is not None and process is not None and process.alive():
            return handle
        if handle is not None:
            os.close(handle)
    raise EngineFailure(CODE, "the sandbox has no network of its own, or has ended")
