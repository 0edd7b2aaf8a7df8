"""Idle time, access, pause, resume, renewal and expiry in any order, with turns of the event loop between or not.

A model that knows only what was done to the sandbox says at each judgement whether it was in use, and in the end
whether it had to be ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.idle_timeout.clocks import Clock
from tests.kernel.lifecycle.fakes import MemoryStore, Recorder, Server, World, expire_now, request
from tests.support.waiting import until

from shoal.config.settings import Settings
from shoal.errors import ShoalError
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.components import Components
from shoal.plugin.context import Unless
from shoal.plugin.interfaces import Access, Observer, Transition
from shoal_idle.plugin import IdleTimeout

TIMEOUT = 60.0
STEPS = st.one_of(
    st.tuples(st.just("advance"), st.sampled_from([1, 30, 59, 60, 61, 120, 500])),
    st.tuples(st.just("turns"), st.integers(1, 12)),
    st.tuples(
        st.sampled_from(
            ["request", "begin", "end", "websocket", "wake", "pause", "resume", "renew", "expire", "settle"]
        ),
        st.just(0),
    ),
)


class Model(Observer):
    """What one knows of the sandbox without asking the plugin: when it was last in use, by a clock of the test."""

    name: ClassVar[str] = "model"

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.last = now()
        self.open = 0
        self.wrong: list[str] = []

    def used(self, grace: float = 0.0) -> None:
        self.last = max(self.last, self.now() + grace)

    @property
    def idle(self) -> bool:
        return self.open == 0 and self.now() - self.last >= TIMEOUT

    def transition(self, event: Transition) -> None:
        if event.after is State.RUNNING:
            self.used()


class Judged:
    """The engine as the plugin sees it; every judgement is compared with the model's."""

    lifecycle: SandboxLifecycle
    model: Model

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        return self.lifecycle.find(sandbox_id)

    def known(self, sandbox_id: str) -> bool:
        return self.lifecycle.known(sandbox_id)

    def records(self) -> Iterator[SandboxRecord]:
        return self.lifecycle.records()

    def accessed(self, access: Access) -> None:
        raise NotImplementedError

    async def renew(self, sandbox_id: str, expires_at: datetime, *, only_later: bool = False) -> datetime:
        raise NotImplementedError

    async def delete(self, sandbox_id: str, *, reason: str = "DELETED", unless: Unless | None = None) -> None:
        await self.lifecycle.delete(sandbox_id, reason=reason, unless=self._compared(unless))

    async def pause(self, sandbox_id: str, *, unless: Unless | None = None) -> None:
        await self.lifecycle.pause(sandbox_id, unless=self._compared(unless))

    async def resume(self, sandbox_id: str) -> None:
        await self.lifecycle.resume(sandbox_id)

    def _compared(self, unless: Unless | None) -> Unless:
        assert unless is not None

        def compared(record: SandboxRecord) -> bool:
            verdict = unless(record)
            if verdict is (self.model.idle and record.state is State.RUNNING):
                self.model.wrong.append(f"{record.state}, idle: {self.model.idle}, spared: {verdict}")
            return verdict

        return compared


class Trial:
    """One sandbox, one plugin, one model, and the steps that befall them."""

    def __init__(self, action: str) -> None:
        self.action = action
        self.now, self.world, self.recorder = Clock(), World(), Recorder()
        handle = Judged()
        self.plugin = IdleTimeout(handle, self.now)
        self.model = handle.model = Model(self.now)
        server = Server(self.world)  # for its store and runtime; the engine is one with the plugin in it
        self.disk = server.disk
        components = Components(
            store=MemoryStore(self.disk),
            runtimes={"memory": server.runtime},
            default_runtime="memory",
            renewals=[self.plugin],
            observers=[self.recorder, self.model],
        )
        self.lifecycle = handle.lifecycle = SandboxLifecycle(Settings(), lambda _: components)
        server.lifecycle = self.lifecycle
        self.server = server
        self.pending: list[asyncio.Task[object]] = []
        self.id = ""

    async def run(self, steps: list[tuple[str, int]]) -> None:
        await self.lifecycle.start()
        await self.plugin.start()
        try:
            extensions = {"access.idle.timeout.seconds": "60", "access.idle.action": self.action}
            wishes = {**extensions, "access.resume": "on-access"}
            self.id = (await self.lifecycle.sandboxes.create(request(extensions=wishes, timeout=3600))).record.id
            await until(lambda: self.state is State.RUNNING)
            self.model.used()
            for name, number in steps:
                await self.step(name, number)
            await self.conclude()
        finally:
            await self.plugin.stop()
            await self.lifecycle.stop(grace=2.0)

    @property
    def state(self) -> State | None:
        record = self.lifecycle.find(self.id)
        return record.state if record else None

    async def step(self, name: str, number: int) -> None:
        match name:
            case "advance":
                self.now.seconds += number
                self.plugin.clock.fire()
            case "turns":
                for _ in range(number):
                    await asyncio.sleep(0)
            case "request" | "begin" if self.lifecycle.reach.address(self.id, 80):
                self.lifecycle.reach.accessed(self.id, 80, "http")
                self.model.open += 1
                if name == "request":
                    self.end()
            case "end" if self.model.open:
                self.end()
            case "websocket" if self.lifecycle.reach.address(self.id, 80):
                self.lifecycle.reach.accessed(self.id, 80, "websocket")
                self.model.used(60.0)
            case "wake":
                self.spawn(self.lifecycle.reach.await_address(self.id, 80))
            case "pause":
                self.spawn(self.lifecycle.pause(self.id))
            case "resume":
                self.spawn(self.lifecycle.resume(self.id))
            case "renew":
                self.spawn(self.lifecycle.renew(self.id, datetime.now(UTC) + timedelta(hours=2)))
            case "expire" if self.state not in (None, State.STOPPING):
                await self.settle()
                if self.state not in (None, State.STOPPING):
                    expire_now(self.server, self.id)
            case "settle":
                await self.settle()

    def end(self) -> None:
        self.lifecycle.reach.finished(self.id)
        self.model.open -= 1
        self.model.used()

    def spawn(self, job: Coroutine[Any, Any, object]) -> None:
        self.pending.append(asyncio.get_running_loop().create_task(job))

    async def settle(self) -> None:
        """Until nothing is under way any more."""
        lanes = self.lifecycle._core.lanes
        for _ in range(3):
            await until(lambda: not lanes._running and not self.plugin._tasks)
            for _ in range(5):
                await asyncio.sleep(0)

    async def conclude(self) -> None:
        """Left alone for long enough it must be gone, or paused; and nothing may be left behind."""
        await self.settle()
        for outcome in await asyncio.gather(*self.pending, return_exceptions=True):
            assert not isinstance(outcome, BaseException) or isinstance(outcome, ShoalError), outcome
        while self.model.open:
            self.end()
        await self.settle()
        for _ in range(3):  # a second time, should the first have met a pause that was taken back
            await self.step("advance", 500)
            await self.settle()
        assert self.model.wrong == []
        assert self.state in (None, State.PAUSED)
        assert self.action == "delete" or all(event.record.reason != "IDLE" for event in self.recorder.told)
        if self.state is None:
            assert (len(self.plugin.clock), self.world.workloads) == (0, {})


@pytest.mark.parametrize("action", ["delete", "pause"])
@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_it_ends_when_it_is_idle_and_never_while_it_is_in_use(action: str, steps: list[tuple[str, int]]) -> None:
    asyncio.run(Trial(action).run(steps))
