"""The memory runtime, made to obey the few words of shell that the conformance suite speaks: echo, sleep and exit."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

from tests.kernel.lifecycle.fakes import MemoryRuntime, World

from shoal.errors import InvalidRequest
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import LogQuery, Progress


class ScriptedWorld(World):
    """A world whose workloads write lines and end by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.output: dict[str, list[str]] = {}
        self._scripts: dict[str, asyncio.Task[None]] = {}

    def begin(self, sandbox_id: str, line: str) -> None:
        """Run the script of a new workload."""
        self.output[sandbox_id] = []
        self._scripts[sandbox_id] = asyncio.create_task(self._run(sandbox_id, line))

    def end(self, sandbox_id: str) -> None:
        """Whatever still runs of it ends."""
        script = self._scripts.pop(sandbox_id, None)
        if script is not None:
            script.cancel()

    async def _run(self, sandbox_id: str, line: str) -> None:
        line = re.sub(r"for i in ([\d ]+); do echo line-\$i; done", _unrolled, line)
        for word, _, argument in (part.strip().partition(" ") for part in line.split(";")):
            if word == "echo":
                self.output[sandbox_id].append(argument)
            elif word == "sleep":
                await asyncio.sleep(float(argument))
            elif word == "exit":
                phase = Phase.FAILED if int(argument) else Phase.EXITED
                self.change(sandbox_id, phase, reason="EXITED", message=f"exit code {argument}")
                return


class ScriptedRuntime(MemoryRuntime):
    """Runs ``sh -c``."""

    world: ScriptedWorld

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        if plan.command[0] != "sh":
            raise InvalidRequest("MEMORY::NO_SUCH_COMMAND", "There is no such command.")
        known = plan.id in self.world.workloads
        made = await super().create(plan, progress)
        if not known:
            self.world.begin(plan.id, plan.command[2])
        return made

    async def delete(self, sandbox_id: str) -> None:
        self.world.end(sandbox_id)
        await super().delete(sandbox_id)

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:  # type: ignore[override]  # the base ignores it
        self._known(sandbox_id)
        return "\n".join(self.world.output[sandbox_id][-query.tail :]) or "(no logs)"

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self.world.watch()


def _unrolled(loop: re.Match[str]) -> str:
    return "; ".join(f"echo line-{number}" for number in loop[1].split())
