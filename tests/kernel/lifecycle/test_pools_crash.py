"""``kill -9`` at every single call to the store and to the engine while pools fill and creates take from them.

Whatever instant the server dies at: no create's sandbox is lost or given twice, and every workload is either somebody's
or a frozen member of the pool, of which there are as many as there should be.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.kernel.lifecycle.fakes import Boundary, Killed, Server, StoreContent, World
from tests.support.waiting import until

from shoal.errors import Conflict, Unavailable
from shoal.models.pools import CapacitySpec, CreatePool
from shoal.models.requests import CreateSandbox
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase

BUFFER, TAKES = 2, 4
TEMPLATE = {"image": {"uri": "host"}, "entrypoint": ["sleep", "1"]}


class Story:
    """One pool and its clients, over servers that die."""

    def __init__(self) -> None:
        self.world, self.disk = World(), StoreContent()
        self.answered: dict[str, str] = {}
        self.pool_made = False

    async def live(self, die_at: int | None, *, after: bool) -> int:
        """One server's life: make the pool, take concurrently, change it. Returns how many calls it made."""
        boundary = Boundary(die_at, after=after)
        server = Server(self.world, self.disk, boundary, pool_settle_seconds=0)
        life = asyncio.create_task(self._work(server))
        dying = asyncio.create_task(boundary.dead.wait())
        await asyncio.wait([life, dying], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if boundary.dead.is_set():
            await server.die()
        else:
            await life
            await server.lifecycle.stop(grace=2.0)
        return boundary.calls

    async def _work(self, server: Server) -> None:
        await server.lifecycle.start()
        await self._pool(server)
        [pool] = server.lifecycle._keeper.pools.values()
        await until(lambda: sum(member.state is State.PAUSED for member in pool.hidden.values()) == BUFFER)
        await asyncio.gather(*(self._take(server, f"key-{number}") for number in range(TAKES)))

    async def _pool(self, server: Server) -> None:
        if "warm" not in {pool.name for pool in self.disk.pools.values()}:
            spec = CapacitySpec(buffer_max=BUFFER, buffer_min=BUFFER, pool_max=20, pool_min=0)
            await server.lifecycle.pools.create(CreatePool(name="warm", template=TEMPLATE, capacity_spec=spec))

    async def _take(self, server: Server, key: str) -> None:
        request = CreateSandbox(extensions={"poolRef": "warm"}, metadata={"by": key}, timeout=3600)
        entry = await server.lifecycle.sandboxes.create(request, idempotency_key=key)
        assert self.answered.setdefault(key, entry.record.id) == entry.record.id, "one key, one sandbox"

    async def settle(self) -> None:
        """The last server: everything that was begun is finished, and all of it adds up."""
        async with Server(self.world, self.disk, pool_settle_seconds=0) as server:
            await self._pool(server)
            await asyncio.gather(*(self._take(server, f"key-{number}") for number in range(TAKES)))
            [pool] = server.lifecycle._keeper.pools.values()

            def settled() -> bool:
                records = list(self.disk.records.values())
                hidden = [record.state for record in records if record.hidden]
                return hidden == [State.PAUSED] * BUFFER and all(_rests(record) for record in records)

            await until(settled)
            assert len(set(self.answered.values())) == TAKES, "one member was given to two"
            self._adds_up(server)
            assert pool.taken == {record.id for record in self.disk.records.values() if not record.hidden}

    def _adds_up(self, server: Server) -> None:
        records = self.disk.records
        assert set(self.world.workloads) == set(records)
        for sandbox_id, record in records.items():
            phase = Phase.PAUSED if record.hidden else Phase.RUNNING
            assert self.world.workloads[sandbox_id].phase is phase
            assert (server.lifecycle.find(sandbox_id) is None) is record.hidden
        for key, sandbox_id in self.answered.items():
            assert records[sandbox_id].metadata == {"by": key}
            assert records[sandbox_id].expires_at is not None


def _rests(record: SandboxRecord) -> bool:
    return record.state is (State.PAUSED if record.hidden else State.RUNNING)


async def _count() -> int:
    story = Story()
    return await story.live(None, after=False)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_dying_at_every_call(after: bool) -> None:
    calls = await _count()
    assert calls > 30
    for die_at in range(1, calls + 4):
        story = Story()
        try:
            await story.live(die_at, after=after)
            await story.live(die_at // 2 + 1, after=not after)
            await story.settle()
        except (AssertionError, Conflict, Unavailable, Killed) as error:
            raise AssertionError(f"died at call {die_at} of {calls}") from error
