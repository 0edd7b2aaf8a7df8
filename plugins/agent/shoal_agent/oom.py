"""When memory runs out: what the agent has started dies before the agent does, and says why."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

from shoal_agent.cgroup import Cgroup, entry, number, read

OFFER = 500
"""By how much a child's claim to stay is less than the agent's: half of the memory, in thousandths."""
MAX_SCORE = 1000


@functools.cache
def _score() -> str:
    return str(min((number("/proc/self/oom_score_adj") or 0) + OFFER, MAX_SCORE))


def offer(pid: int) -> None:
    """Lets the kernel kill this child and its children before the agent, which is larger than many small ones."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as file:
        file.write(_score())


def kills() -> int:
    """How many processes the kernel has killed for lack of memory: in this cgroup, or on this machine."""
    cgroup = Cgroup.of_this_process()
    for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
        for folder in cgroup.folders(controller)[:1]:
            found = entry(read(f"{folder}/{name}"), "oom_kill")
            if found is not None:
                return found
    return entry(read("/proc/vmstat"), "oom_kill") or 0


class OutOfMemory:
    """Whether what was just killed was probably killed for lack of memory."""

    def __init__(self, count: Callable[[], int] = kills) -> None:
        self._count = count
        self._known = self._latest = count()

    def struck(self) -> bool:
        """Whether a process has been killed that no answer of this has spoken for, and not long ago."""
        before, self._known = self._known, self._count()
        self._latest = self._known
        return self._known > before

    def tick(self) -> None:
        """Call it at intervals: what was killed before the last interval is no reason for what ends from now on.

        The last interval counts, for a large process may end seconds after it was killed.
        """
        self._known, self._latest = self._latest, self._count()
