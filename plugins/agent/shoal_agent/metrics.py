"""What the sandbox uses, for clients: `docs/wire/execd.md` section 9."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator

from shoal_agent.agent import RunningAgent
from shoal_agent.cgroup import Cgroup
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, Stream, json_response
from shoal_agent.http.routes import Routes
from shoal_agent.usage import MIB, CpuTime, Usage

MIN_SAMPLE_INTERVAL = 0.05
MAX_SAMPLE_INTERVAL = 10.0
"""Seconds between two looks at the processor time whose difference is reported."""
WATCH_INTERVAL = 2.0
"""Seconds between two lines of a watch."""


class Meter:
    """Remembers the processor time of its last look, so that most answers need not wait for a second one."""

    def __init__(self) -> None:
        self._last: CpuTime | None = None
        self._percent = 0.0

    async def sample(self) -> dict[str, float | int]:
        """The five figures; at most `MIN_SAMPLE_INTERVAL` seconds after the call."""
        usage = Usage(Cgroup.of_this_process())  # anew: a process may be moved
        cpus, memory = usage.cpus(), usage.memory()
        return {
            "cpu_count": math.ceil(cpus),  # one SDK reads a whole number
            "cpu_used_pct": round(await self._cpu_percent(usage, cpus), 2),
            "mem_total_mib": round(memory.total / MIB, 2),
            "mem_used_mib": round(memory.used / MIB, 2),
            "timestamp": time.time_ns() // 1_000_000,
        }

    async def _cpu_percent(self, usage: Usage, cpus: float) -> float:
        """The share of the processors that it may use, since the last look if that is recent."""
        before, now = self._last, usage.cpu_time()
        if before is not None and now.moment - before.moment < MIN_SAMPLE_INTERVAL:
            return self._percent
        if before is None or now.moment - before.moment > MAX_SAMPLE_INTERVAL:
            before = now
            await asyncio.sleep(MIN_SAMPLE_INTERVAL)
            now = usage.cpu_time()
        self._last = now
        share = (now.used - before.used) / max(now.moment - before.moment, 1e-6) / cpus
        self._percent = min(100.0, max(0.0, 100.0 * share))
        return self._percent


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """`/metrics` and `/metrics/watch`."""
    meter = Meter()

    async def metrics(request: Request) -> Answer:
        return json_response(await meter.sample())

    async def watch(request: Request) -> Answer:
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")]
        return Stream(_watched(Meter()), headers=headers)

    routes.get("/metrics", metrics)
    routes.get("/metrics/watch", watch)


async def _watched(meter: Meter) -> AsyncIterator[bytes]:
    while True:
        try:
            line = json.dumps(await meter.sample(), separators=(",", ":"))
        except OSError as error:
            line = json.dumps({"error": str(error)}, separators=(",", ":"))
        yield line.encode() + b"\n"
        await asyncio.sleep(WATCH_INTERVAL)
