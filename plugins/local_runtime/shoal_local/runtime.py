"""The runtime ``local``: the kernel's interface on one side, blocking work on bounded threads on the other.

This object keeps only a pidfd for each running sandbox, so that its end is reported at once, and the marks of the logs.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from socket import socket
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

import structlog

from shoal.config.settings import Settings
from shoal.errors import ShoalError, Unavailable
from shoal.kit import BoundedThreads, Feed
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Workload, WorkloadGone
from shoal.plugin.interfaces import AGENT_PORT, Agent, AgentFiles, Capabilities, LogQuery, Progress, Runtime
from shoal_local.agent.starter import Starter, Surroundings
from shoal_local.config import LocalSettings
from shoal_local.image.oci import architecture
from shoal_local.keeper import Keeper
from shoal_local.network import modes
from shoal_local.network.dialler import Dialler
from shoal_local.run.maker import Maker
from shoal_local.run.process import open_pidfd
from shoal_local.state.box import Box, Started
from shoal_local.state.logs import LogKeeper

P = ParamSpec("P")
T = TypeVar("T")

log: Final = structlog.get_logger("shoal.local")

LOG_INTERVAL: Final = 1.0
LOG_INTERVAL_BUSY: Final = 0.1
"""Seconds between two looks at the logs; the second while one grows by a good part of its limit in between."""
SWEEP_INTERVAL: Final = 60.0
"""Seconds between two tries to remove files that could not be removed with their sandbox."""
REVISIONS: Final = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds before each further look at a machine that seemed able to less than it may be."""
STOCK_SECONDS: Final = 0.1
"""After a create, before networks are made for the next: that takes processor time which the first command needs."""
SLOW_SECONDS: Final = 0.5
"""What takes longer is shown in the sandbox's status."""
SPARE_THREADS: Final = 4
"""For reads (logs, inspect, list) while all others are busy making and removing."""


class LocalRuntime(Runtime):
    """Sandboxes as process trees on this machine."""

    name: ClassVar[str] = "local"
    scope: ClassVar[str] = "LOCAL"

    def __init__(
        self, settings: Settings, local: LocalSettings, config: Path | None = None, agent: Agent | None = None
    ) -> None:
        platforms = frozenset({f"linux/{architecture()}"})
        self.capabilities = Capabilities(
            pause=True, snapshots=True, secure_access=True, volumes=frozenset({"host"}), platforms=platforms
        )
        self.concurrency = local.concurrency
        self._local = local
        self._keeper = Keeper(settings, local, config)
        self._logs = LogKeeper(local.log_max_bytes)
        self._feed = Feed()
        self._handles: dict[str, int] = {}
        self._dialler = Dialler(self._keeper.broker, self._keeper.started, self._handles.__contains__)
        self.agent, self.agent_starts = agent, agent is not None
        self._starter: Starter | None = None
        if agent is not None:
            keeper = self._keeper
            surroundings = Surroundings(keeper.state.box, keeper.groups_of, keeper.filter, self._agent_files)
            self._starter = Starter(agent, surroundings, self._dialler.connect)
        self._created = 0
        self._preparing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool: BoundedThreads | None = None

    async def start(self) -> None:
        """Find out what this machine can do, and find the sandboxes that are there. Raises ConfigError."""
        self._pool = BoundedThreads(self.concurrency + SPARE_THREADS, "local-runtime")
        for box, started in await self._call(self._keeper.open):
            self._follow(box, started)
        self._preparing = self._task(self._prepare_agent())
        self._task(self._tend_logs())
        self._task(self._sweep())
        self._task(self._revise())

    async def stop(self) -> None:
        """Let go of everything; the sandboxes go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._feed.close()
        for sandbox_id in list(self._handles):
            self._unfollow(sandbox_id)
        self._dialler.close()
        if self._starter is not None:
            self._starter.close()
        if self._pool is not None:
            await self._call(self._keeper.give_up_stock)
            await self._pool.close()
            self._pool = None
        self._keeper.close()

    def check_config(self) -> None:
        """Raises ConfigError for a network that cannot be had here; logs why sandboxes have no way out."""
        modes.choose(self._local, self._keeper.broker)
        hint = modes.hint(self._local)
        if hint is not None:
            log.info(hint)

    async def ping(self) -> None:
        """The state directory must still be there and writable."""
        if not await self._call(self._keeper.writable):
            raise Unavailable(
                "LOCAL::UNAVAILABLE", "the local runtime's state directory cannot be written, or its disk is full"
            )

    async def check(self, plan: WorkloadPlan) -> None:
        await self._call(self._maker().check, plan)

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        loop, box = asyncio.get_running_loop(), self._box(plan.id)

        def progressed(reason: str, message: str) -> None:
            loop.call_soon_threadsafe(progress, reason, message)

        await self._await_agent(progress)
        started = await self._call(self._maker().make, box, plan, progressed, await self._agent_files())
        self._follow(box, started)
        if self._starter is not None:
            self._starter.expect(plan.id)
            self._task(self._starter.warm())
        self._task(self._stock())
        return await self._call(self._keeper.see, box)

    async def delete(self, sandbox_id: str) -> None:
        self._unfollow(sandbox_id)
        self._logs.forget(sandbox_id)
        await self._call(self._keeper.remove, self._box(sandbox_id))
        self._feed.publish(WorkloadGone(id=sandbox_id))

    async def pause(self, sandbox_id: str) -> Workload:
        return self._published(await self._call(self._keeper.pause, self._box(sandbox_id)))

    async def resume(self, sandbox_id: str) -> Workload:
        return self._published(await self._call(self._keeper.resume, self._box(sandbox_id)))

    async def apply(self, record: SandboxRecord) -> None:
        await self._call(self._keeper.apply, record)

    async def list(self) -> list[Workload]:
        return await self._call(self._keeper.all)

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self._feed.subscribe()

    async def connect(self, sandbox_id: str, port: int) -> socket:
        if port == AGENT_PORT and self._starter is not None:
            await self._starter.ensure_first(sandbox_id)
        try:
            return await self._dialler.connect(sandbox_id, port)
        except ConnectionRefusedError:
            if port != AGENT_PORT or self._starter is None:
                raise
        await self._starter.ensure(sandbox_id)
        return await self._dialler.connect(sandbox_id, port)

    async def _agent_files(self) -> AgentFiles | None:
        """The agent's files; without them a sandbox runs all the same."""
        if self.agent is None:
            return None
        try:
            return await self.agent.files(f"linux/{architecture()}")
        except ShoalError as error:
            log.warning("sandboxes get no agent", error=error.message)
            return None

    async def check_snapshot(self, sandbox_id: str) -> None:
        await self._call(self._keeper.check_snapshot, self._box(sandbox_id))

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        return await self._call(self._keeper.snapshot, self._box(sandbox_id), snapshot_id)

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        await self._call(self._keeper.delete_snapshot, image)

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        return await self._call(self._logs.text, self._box(sandbox_id), query)

    async def events(self, sandbox_id: str, limit: int) -> str:
        return await self._call(self._keeper.events, self._box(sandbox_id), limit)

    async def inspect(self, sandbox_id: str) -> str:
        return await self._call(self._keeper.inspect, self._box(sandbox_id))

    def _box(self, sandbox_id: str) -> Box:
        return self._keeper.state.box(sandbox_id)

    def _maker(self) -> Maker:
        if self._keeper.maker is None:
            raise Unavailable("LOCAL::UNAVAILABLE", "the local runtime has not been started")
        return self._keeper.maker

    async def _call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work on one of the runtime's threads; a caller that is cancelled leaves once it has ended."""
        if self._pool is None:
            raise Unavailable("LOCAL::UNAVAILABLE", "the local runtime is not running")
        return await self._pool.run(work, *args, **kwargs)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _published(self, workload: Workload) -> Workload:
        self._feed.publish(workload)
        return workload

    def _follow(self, box: Box, started: Started) -> None:
        """Hear of the sandbox's end as soon as it comes."""
        self._unfollow(box.id)
        self._logs.follow(box.id)
        handle = open_pidfd(started.top)
        if handle is None:
            self._task(self._settle(box, started.top.pid))
            return
        self._handles[box.id] = handle
        asyncio.get_running_loop().add_reader(handle, self._on_end, box, handle, started.top.pid)

    def _unfollow(self, sandbox_id: str) -> None:
        self._dialler.forget(sandbox_id)
        if self._starter is not None:
            self._starter.forget(sandbox_id)
        handle = self._handles.pop(sandbox_id, None)
        if handle is not None:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)

    def _on_end(self, box: Box, handle: int, pid: int) -> None:
        if self._handles.get(box.id) == handle:
            self._unfollow(box.id)
            self._task(self._settle(box, pid))

    async def _settle(self, box: Box, pid: int) -> None:
        workload = await self._call(self._keeper.ended, box, pid)
        if workload is not None:
            self._feed.publish(workload)

    async def _prepare_agent(self) -> None:
        """Making the files may take seconds, which begin with the server and not with the first create."""
        await self._agent_files()

    async def _await_agent(self, progress: Progress) -> None:
        """Say what a create waits for while they are still being made."""
        if self._preparing is not None and not self._preparing.done():
            done, _ = await asyncio.wait([self._preparing], timeout=SLOW_SECONDS)
            if not done:
                progress("AGENT_PREPARING", "The agent of sandboxes is being prepared.")

    async def _stock(self) -> None:
        """After the last of several creates, when its first command has been run."""
        self._created += 1
        mine = self._created
        await asyncio.sleep(STOCK_SECONDS)
        if mine == self._created:
            await self._call(self._keeper.stock)

    async def _revise(self) -> None:
        for pause in REVISIONS:
            if not self._keeper.doubtful:
                return
            await asyncio.sleep(pause)
            await self._call(self._keeper.revise)

    async def _sweep(self) -> None:
        while True:
            await self._call(self._keeper.empty_trash)
            await asyncio.sleep(SWEEP_INTERVAL)

    async def _tend_logs(self) -> None:
        interval = LOG_INTERVAL
        while True:
            await asyncio.sleep(interval)
            busy = await self._call(self._logs.tend, self._keeper.state.box)
            interval = LOG_INTERVAL_BUSY if busy else LOG_INTERVAL
