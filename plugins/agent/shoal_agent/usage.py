"""What this sandbox uses and may use: its cgroup's figures, the host's where it has none of its own."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from shoal_agent.cgroup import UNLIMITED, Cgroup, entry, number, read

MIB = 1024 * 1024


class Memory(NamedTuple):
    """Bytes."""

    total: int
    used: int


class CpuTime(NamedTuple):
    """A moment, and the processor time used until then; seconds."""

    moment: float
    used: float


class Usage:
    """Reads the figures anew at every call. `proc` is where the host's are."""

    def __init__(self, cgroup: Cgroup, proc: str = "/proc") -> None:
        self._cgroup = cgroup
        self._proc = proc

    def cpus(self) -> float:
        """Processors that may be used: the quota, else those that processes may run on."""
        allowed = float(len(os.sched_getaffinity(0)))
        return min([allowed, *self._quotas()])

    def _quotas(self) -> list[float]:
        quotas = []
        for folder in self._cgroup.folders(""):
            limit = read(f"{folder}/cpu.max").split()
            if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit():
                quotas.append((int(limit[0]), int(limit[1])))
        quotas.extend(
            (number(f"{folder}/cpu.cfs_quota_us") or 0, number(f"{folder}/cpu.cfs_period_us") or 0)
            for folder in self._cgroup.folders("cpu")
        )
        return [quota / period for quota, period in quotas if quota > 0 and period > 0]

    def cpu_time(self) -> CpuTime:
        """Processor time until now."""
        for folder in self._cgroup.folders("")[:1]:
            used = entry(read(f"{folder}/cpu.stat"), "usage_usec")
            if used is not None:
                return CpuTime(time.monotonic(), used / 1e6)
        for folder in self._cgroup.folders("cpuacct")[:1]:
            used = number(f"{folder}/cpuacct.usage")
            if used is not None:
                return CpuTime(time.monotonic(), used / 1e9)
        return self._host_cpu_time()

    def _host_cpu_time(self) -> CpuTime:
        fields = [int(field) for field in read(f"{self._proc}/stat").partition("\n")[0].split()[1:] if field.isdigit()]
        busy = sum(fields[:3]) + sum(fields[5:8])  # user, nice, system; irq, softirq, steal
        return CpuTime(time.monotonic(), busy / os.sysconf("SC_CLK_TCK"))

    def memory(self) -> Memory:
        """Memory of the sandbox; what the kernel would drop first (clean file pages) is not counted as used."""
        info = read(f"{self._proc}/meminfo")
        total = (entry(info, "MemTotal") or 0) * 1024
        own = self._cgroup_memory()
        if own is None:
            return Memory(total, total - (entry(info, "MemAvailable") or 0) * 1024)
        limits = [limit for limit in self._memory_limits() if limit < UNLIMITED]
        total = min([total, *limits]) if total else min(limits, default=own)
        return Memory(total, min(own, total))

    def _memory_limits(self) -> list[int]:
        limits = [number(f"{folder}/memory.max") for folder in self._cgroup.folders("")]
        limits += [number(f"{folder}/memory.limit_in_bytes") for folder in self._cgroup.folders("memory")]
        return [limit for limit in limits if limit is not None]

    def _cgroup_memory(self) -> int | None:
        for controller, used_file, inactive in (
            ("", "memory.current", "inactive_file"),
            ("memory", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            for folder in self._cgroup.folders(controller)[:1]:
                used = number(f"{folder}/{used_file}")
                if used is not None:
                    return max(0, used - (entry(read(f"{folder}/memory.stat"), inactive) or 0))
        return None
