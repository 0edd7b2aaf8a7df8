"""``kill -9`` at every single call to the store and to the engine, before and after it took effect.

A scenario of random operations by several clients runs once to count its calls, then once for each of them, dying
there; often the restarted server dies as well, in the midst of taking up. Whatever was promised to a client must hold
once the last server has settled, and the view must equal what runs.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from tests.kernel.lifecycle.fakes import Boundary, Server, StoreContent, World, request
from tests.support.waiting import until

from shoal.errors import Conflict, EngineFailure, InvalidRequest, NotFound
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase

CLIENTS, STEPS = 3, 15
SHORT = 0.02
"""Seconds of the shortest life that a client asks for."""
FOREVER = timedelta(hours=1)
OF_PHASE = {Phase.RUNNING: State.RUNNING, Phase.PAUSED: State.PAUSED}


class Promises:
    """What clients were told, and what they asked for without having been told yet."""

    def __init__(self) -> None:
        self.made: dict[str, str | None] = {}
        self.keys: dict[str, str] = {}
        self.may_be_gone: set[str] = set()
        self.gone: set[str] = set()
        self.metadata: dict[str, dict[str, str]] = {}
        self.expiry: dict[str, datetime] = {}
        self.expiry_asked: dict[str, datetime] = {}


class Client:
    """One client: makes sandboxes and changes its own, one request after another."""

    def __init__(self, number: int, seed: int, server: Server, promises: Promises) -> None:
        self._name = f"client-{number}"
        self._rng = random.Random(f"{seed}/{number}")
        self._server, self._lifecycle = server, server.lifecycle.sandboxes
        self._promises = promises
        self._mine: list[str] = []

    async def run(self) -> None:
        """Every step of this client's script."""
        for step in range(STEPS):
            name = self._rng.choice(["create", "patch", "pause", "resume", "renew", "shorten", "delete", "wait"])
            actions: dict[str, Callable[[str, int], Awaitable[None]]] = {
                "patch": self._patch,
                "pause": lambda sandbox_id, _: self._lifecycle.pause(sandbox_id),
                "resume": lambda sandbox_id, _: self._lifecycle.resume(sandbox_id),
                "renew": lambda sandbox_id, step: self._renew(sandbox_id, FOREVER + timedelta(seconds=step)),
                "shorten": lambda sandbox_id, _: self._renew(sandbox_id, timedelta(seconds=SHORT)),
                "delete": self._delete,
                "wait": self._wait,
            }
            if name == "create" or not self._mine:
                await self._create(step)
                continue
            try:
                await actions[name](self._rng.choice(self._mine), step)
            except (NotFound, Conflict, EngineFailure):
                self._forget_asked()  # told no, so nothing is left open

    def _forget_asked(self) -> None:
        for sandbox_id in self._mine:
            self._promises.expiry_asked.pop(sandbox_id, None)

    async def _create(self, step: int) -> None:
        key = f"{self._name}/{step}" if self._rng.random() < 0.5 else None
        entry = await self._lifecycle.create(
            request(timeout=3600, metadata={"by": self._name, "step": str(step)}), idempotency_key=key
        )
        sandbox_id = entry.record.id
        self._mine.append(sandbox_id)
        assert entry.record.expires_at is not None
        self._promises.made[sandbox_id] = key
        self._promises.expiry[sandbox_id] = entry.record.expires_at
        self._promises.metadata[sandbox_id] = dict(entry.record.metadata)

    async def _patch(self, sandbox_id: str, step: int) -> None:
        await self._lifecycle.patch_metadata(sandbox_id, {f"step-{step}": self._name})
        self._promises.metadata[sandbox_id][f"step-{step}"] = self._name

    async def _renew(self, sandbox_id: str, life: timedelta) -> None:
        wanted = datetime.now(UTC) + life
        self._promises.expiry_asked[sandbox_id] = wanted
        try:
            self._promises.expiry[sandbox_id] = await self._lifecycle.renew(sandbox_id, wanted)
        except InvalidRequest:
            assert datetime.now(UTC) >= wanted  # on a busy machine a short life is over before its turn comes
        del self._promises.expiry_asked[sandbox_id]

    async def _delete(self, sandbox_id: str, step: int) -> None:
        self._promises.may_be_gone.add(sandbox_id)
        await self._lifecycle.delete(sandbox_id)
        self._promises.gone.add(sandbox_id)

    async def _wait(self, sandbox_id: str, step: int) -> None:
        await self._lifecycle.wait(sandbox_id, frozenset({State.RUNNING}), SHORT)


class Story:
    """One scenario, with the servers that lived and died in it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world, self.disk, self.promises = World(), StoreContent(), Promises()
        rng = random.Random(seed)
        doomed: dict[str, bool] = {}

        def fault(call: str, sandbox_id: str) -> None:
            if call == "create" and doomed.setdefault(sandbox_id, rng.random() < 0.1):
                raise EngineFailure("MEMORY::DOOMED", "This one never starts.")
            if call in ("create", "pause", "resume") and rng.random() < 0.05:
                raise EngineFailure("MEMORY::HICCUP", "Try again.", retry_after=0.0)

        self.world.fault = fault

    async def live(self, boundary: Boundary) -> int:
        """One process from start to its death, or to the end of the script; returns the calls that it made."""
        server = Server(self.world, self.disk, boundary)
        serving = asyncio.create_task(self._serve(server))
        await asyncio.wait((serving, asyncio.create_task(boundary.dead.wait())), return_when=asyncio.FIRST_COMPLETED)
        calls = boundary.calls
        if not boundary.dead.is_set():
            await serving  # every answer was one that clients expect
        await server.die()
        return calls

    async def _serve(self, server: Server) -> None:
        await server.lifecycle.start()
        clients = [Client(number, self.seed, server, self.promises) for number in range(CLIENTS)]
        await asyncio.gather(*(client.run() for client in clients))

    async def restart(self, boundary: Boundary) -> None:
        """A process that dies while it takes up what the one before left."""
        server = Server(self.world, self.disk, boundary)
        starting = asyncio.create_task(server.lifecycle.start())
        await asyncio.wait((starting, asyncio.create_task(boundary.dead.wait())), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.003)
        await server.die()

    async def end(self) -> None:
        """The last server: let it settle, then hold it to every promise."""
        async with Server(self.world, self.disk) as server:
            await until(lambda: self._settled(server))
            self._check_truth(server)
            self._check_promises(server)
            await self._check_keys(server)

    def _settled(self, server: Server) -> bool:
        """Nothing is under way or due, and every state has been compared with the engine's."""
        records = [entry.record for entry in server.lifecycle.view]
        running = self.world.workloads
        return (
            not server.lifecycle._core.lanes._running
            and not any(record.state is State.PENDING or self._is_overdue(record) for record in records)
            and all(record.state is OF_PHASE[running[record.id].phase] for record in records if record.id in running)
        )

    def _is_overdue(self, record: SandboxRecord) -> bool:
        """Whether it was promised a short life; a Failed create is kept for a time of its own."""
        short = self.promises.expiry.get(record.id, datetime.max.replace(tzinfo=UTC)) < datetime.now(UTC) + FOREVER / 2
        return short and record.purge_at is None and record.id not in self.promises.expiry_asked

    def _check_truth(self, server: Server) -> None:
        """View, store and engine say the same; nothing leaked, nothing lost, no secret kept longer than needed."""
        records = {entry.record.id: entry.record for entry in server.lifecycle.view}
        assert records == self.disk.records
        assert self.disk.plans == {}
        alive = {name for name, record in records.items() if record.purge_at is None}
        assert alive == set(self.world.workloads)
        for name in alive:
            phase = self.world.workloads[name].phase
            assert records[name].state is OF_PHASE[phase]
            assert self.world.started[name] == 1
        assert all(count <= 1 for count in self.world.started.values())

    def _check_promises(self, server: Server) -> None:
        promises = self.promises
        for name in promises.made:
            record = server.lifecycle.find(name)
            allowed = {promises.expiry[name], promises.expiry_asked.get(name, promises.expiry[name])}
            if name in promises.gone:
                assert record is None
            elif record is None:
                went = self.world.deleted_at.get(name, datetime.now(UTC))
                assert name in promises.may_be_gone or went >= min(allowed), f"{name} ended early"
            else:
                assert record.expires_at in allowed
                assert promises.metadata[name].items() <= record.metadata.items()

    async def _check_keys(self, server: Server) -> None:
        for name, key in self.promises.made.items():
            if key is None:
                continue
            number, step = key.split("/")
            again = request(timeout=3600, metadata={"by": number, "step": step})
            if server.state(name) is None:
                with pytest.raises(Conflict):
                    await server.lifecycle.sandboxes.create(again, idempotency_key=key)
            else:
                assert (await server.lifecycle.sandboxes.create(again, idempotency_key=key)).record.id == name


@pytest.mark.parametrize("after", [False, True], ids=["before the call", "after the call"])
@pytest.mark.parametrize("seed", range(10))
async def test_death_at_every_call(seed: int, after: bool) -> None:
    calls = await Story(seed).live(Boundary())
    assert calls > 30
    for die_at in range(1, calls + 1):
        story = Story(seed)
        await story.live(Boundary(die_at, after=after))
        if die_at % 2:
            await story.restart(Boundary(die_at % 13 + 1, after=not after))
        await story.end()
