"""When memory runs out: what the agent has started dies before the agent does, and says why."""

from __future__ import annotations

import contextlib
import functools

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


class OutOfMemory:
    """Knows how often the kernel has killed processes for lack of memory: in this cgroup, or on this machine."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._kills = 0
        self.look()

    def look(self) -> bool:
        """Whether a process has been killed since the last look."""
        before, self._kills = self._kills, self._count()
        return self._kills > before

    def _count(self) -> int:
        cgroup = Cgroup.of_this_process()
        for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
            for folder in cgroup.folders(controller)[:1]:
                found = entry(read(f"{folder}/{name}"), "oom_kill")
                if found is not None:
                    return found
        return entry(read(f"{self._proc}/vmstat"), "oom_kill") or 0
