"""A small world for engine tests: an engine and a store that outlive the server, and a server that can die at any call.

`World` is what a container engine is to a real runtime: it holds the workloads and goes on when the server dies.
`MemoryStore` is likewise durable. `Server` is one process: a lifecycle wired to both through handles that refuse
every call once it is killed, as a dead process makes no calls.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import msgspec
from msgspec.structs import replace
from tests.support.waiting import until

from shoal.config.settings import LifecycleSettings, Settings
from shoal.errors import InvalidRequest, NotFound
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import PoolRecord
from shoal.models.requests import CreateSandbox, ImageSpec
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import decode_hook, encode_hook
from shoal.models.workload import Adoption, Phase, Workload, WorkloadGone
from shoal.plugin.components import Components
from shoal.plugin.interfaces import (
    Capabilities,
    IdempotencyKey,
    Networking,
    Observer,
    Progress,
    Runtime,
    SnapshotRecord,
    Store,
    Transition,
)

Fault = Callable[[str, str], Awaitable[None] | None]
"""``fault(call, sandbox_id)``: raises, or waits, in place of the call; anything else lets it happen."""


class Killed(BaseException):
    """The process is dead: nothing of it runs on, not even its error handling."""


class Boundary:
    """Counts the calls that one process makes to its store and its engine, and dies before or after one of them.

    Args:
        die_at: number of the call, from 1, at which to die; None to live.
        after: die after the call took effect, instead of before.
    """

    def __init__(self, die_at: int | None = None, *, after: bool = False) -> None:
        self.die_at = die_at
        self.after = after
        self.calls = 0
        self.dead = asyncio.Event()

    def before(self) -> int:
        """Entering a call; returns its number."""
        if self.dead.is_set():
            raise Killed
        self.calls += 1
        if self.calls == self.die_at and not self.after:
            self.kill()
        return self.calls

    def done(self, number: int) -> None:
        """The call took effect."""
        if self.dead.is_set() or (number == self.die_at and self.after):
            self.kill()

    def kill(self) -> None:
        """Die here."""
        self.dead.set()
        raise Killed


def _bury(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A dead process complains of nothing."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


class World:
    """The engine: workloads, who watches them, what was called, and what goes wrong.

    Attributes:
        calls: how often each ``(method, sandbox id)`` took effect.
        tried: how often each method was called, whatever came of it.
        fault: consulted before each call takes effect.
        delay: awaited inside each call, so that calls overlap as they do on a real engine.
        started, deleted_at: how often each workload came to be, and when it last went.
        deaf: when True, watchers hear nothing: only a comparison finds changes.
        busy: the calls under way, to catch two at once for one sandbox.
    """

    def __init__(self) -> None:
        self.workloads: dict[str, Workload] = {}
        self.snapshots: dict[str, str] = {}
        self.calls: Counter[tuple[str, str]] = Counter()
        self.tried: Counter[str] = Counter()
        self.started: Counter[str] = Counter()
        self.deleted_at: dict[str, datetime] = {}
        self.fault: Fault = lambda call, sandbox_id: None
        self.delay: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)
        self.deaf = False
        self.busy: Counter[str] = Counter()
        self.most_at_once = 0
        self._watchers: list[asyncio.Queue[Workload | WorkloadGone | Exception]] = []

    def change(self, sandbox_id: str, phase: Phase, **changes: str | None) -> None:
        """What happens to a workload behind shoal's back."""
        self.workloads[sandbox_id] = replace(self.workloads[sandbox_id], phase=phase, **changes)
        self.tell(self.workloads[sandbox_id])

    def vanish(self, sandbox_id: str) -> None:
        """Somebody removes a workload behind shoal's back."""
        del self.workloads[sandbox_id]
        self.tell(WorkloadGone(id=sandbox_id))

    def tell(self, change: Workload | WorkloadGone | Exception) -> None:
        """Let every watcher hear of it; an exception breaks their streams."""
        for watcher in [] if self.deaf else self._watchers:
            watcher.put_nowait(change)

    async def heard(self) -> None:
        """Return once every watcher has taken what it was told, and what it began by that has had its turn."""
        await until(lambda: all(watcher.empty() for watcher in self._watchers))
        for _ in range(10):
            await asyncio.sleep(0)

    async def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        queue: asyncio.Queue[Workload | WorkloadGone | Exception] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            while True:
                change = await queue.get()
                if isinstance(change, Exception):
                    raise change
                yield change
        finally:
            self._watchers.remove(queue)

    @property
    def watched(self) -> int:
        """How many streams are open."""
        return len(self._watchers)


class MemoryRuntime(Runtime):
    """A runtime over a `World`."""

    name: ClassVar[str] = "memory"
    scope: ClassVar[str] = "MEMORY"
    capabilities = Capabilities(pause=True, snapshots=True)
    concurrency = 4
    resync_interval = 0.05

    def __init__(self, world: World, boundary: Boundary | None = None) -> None:
        self.world = world
        self._boundary = boundary or Boundary()

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        progress("PULLING", "Pulling the image.")
        adoption = Adoption(
            created_at=plan.created_at, entrypoint=plan.command, expires_at=plan.expires_at, metadata=plan.metadata
        )
        made = Workload(id=plan.id, phase=Phase.RUNNING, host="127.0.0.1", adoption=adoption)
        await self._call("create", plan.id, lambda: self._put(made))
        return self.world.workloads.get(plan.id, made)

    async def delete(self, sandbox_id: str) -> None:
        await self._call("delete", sandbox_id, lambda: self._drop(sandbox_id))

    async def pause(self, sandbox_id: str) -> Workload:
        await self._call("pause", sandbox_id, lambda: self._move(sandbox_id, Phase.RUNNING, Phase.PAUSED))
        return self.world.workloads[sandbox_id]

    async def resume(self, sandbox_id: str) -> Workload:
        await self._call("resume", sandbox_id, lambda: self._move(sandbox_id, Phase.PAUSED, Phase.RUNNING))
        return self.world.workloads[sandbox_id]

    async def apply(self, record: SandboxRecord) -> None:
        await self._call("apply", record.id, lambda: None)

    async def list(self) -> list[Workload]:
        found: list[Workload] = []
        await self._call("list", "", lambda: found.extend(self.world.workloads.values()))
        return found

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self.world.watch()

    async def logs(self, sandbox_id: str, query: object) -> str:
        return f"hello from {self._known(sandbox_id).id}\n"

    async def events(self, sandbox_id: str, limit: int) -> str:
        return f"{self._known(sandbox_id).phase}\n"

    async def inspect(self, sandbox_id: str) -> str:
        return f"Sandbox ID: {self._known(sandbox_id).id}\n"

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        await self._call(
            "snapshot", sandbox_id, lambda: self.world.snapshots.update({snapshot_id: self._known(sandbox_id).id})
        )
        return f"image-of-{snapshot_id}"

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        await self._call("delete_snapshot", snapshot_id, lambda: self.world.snapshots.pop(snapshot_id, None))

    def _known(self, sandbox_id: str) -> Workload:
        if sandbox_id not in self.world.workloads:
            raise NotFound("MEMORY::SANDBOX_NOT_FOUND", "There is no such workload.")
        return self.world.workloads[sandbox_id]

    def _put(self, workload: Workload) -> None:
        if workload.id not in self.world.workloads:
            self.world.workloads[workload.id] = workload
            self.world.started[workload.id] += 1
        self.world.tell(workload)

    def _drop(self, sandbox_id: str) -> None:
        if self.world.workloads.pop(sandbox_id, None) is not None:
            self.world.deleted_at[sandbox_id] = datetime.now(UTC)
            self.world.tell(WorkloadGone(id=sandbox_id))

    def _move(self, sandbox_id: str, before: Phase, after: Phase) -> None:
        if self._known(sandbox_id).phase in (before, after):
            self.world.change(sandbox_id, after)

    async def _call(self, method: str, sandbox_id: str, effect: Callable[[], object]) -> None:
        world, number = self.world, self._boundary.before()
        world.tried[method] += 1
        if sandbox_id:
            assert not world.busy[sandbox_id], f"two engine calls at once on {sandbox_id}"
            world.busy[sandbox_id] += 1
            world.most_at_once = max(world.most_at_once, world.busy.total())
        try:
            await world.delay()
            outcome = world.fault(method, sandbox_id)
            if outcome is not None:
                await outcome
            if self._boundary.dead.is_set():
                raise Killed
            effect()
            world.calls[method, sandbox_id] += 1
            self._boundary.done(number)
            await world.delay()
        finally:
            if sandbox_id:
                world.busy[sandbox_id] -= 1


class StoreContent:
    """What is on the disk.

    Attributes:
        tried: how often each method was called, whatever came of it.
    """

    def __init__(self) -> None:
        self.records: dict[str, SandboxRecord] = {}
        self.plans: dict[str, bytes] = {}
        self.keys: dict[str, IdempotencyKey] = {}
        self.snapshots: dict[str, SnapshotRecord] = {}
        self.pools: dict[str, PoolRecord] = {}
        self.fault: Fault = lambda call, sandbox_id: None
        self.tried: Counter[str] = Counter()


class MemoryStore(Store):
    """A store over `StoreContent`; plans pass through the same encoding as on a real disk."""

    name: ClassVar[str] = "memory"

    def __init__(self, content: StoreContent, boundary: Boundary | None = None) -> None:
        self.content = content
        self._boundary = boundary or Boundary()

    async def sandboxes(self) -> list[SandboxRecord]:
        await self._call("sandboxes", "")
        return list(self.content.records.values())

    async def add(self, record: SandboxRecord, plan: WorkloadPlan, key: IdempotencyKey | None) -> None:
        def commit() -> None:
            assert record.id not in self.content.records
            self.content.records[record.id] = record
            self.content.plans[record.id] = msgspec.json.encode(plan, enc_hook=encode_hook)
            if key is not None:
                self.content.keys[key.key] = key

        await self._call("add", record.id, commit)

    async def save(
        self, record: SandboxRecord, *, forget_plan: bool = False, key: IdempotencyKey | None = None
    ) -> None:
        def commit() -> None:
            self.content.records[record.id] = record
            if key is not None:
                self.content.keys[key.key] = key
            if forget_plan:
                self.content.plans.pop(record.id, None)

        await self._call("save", record.id, commit)

    async def plan(self, sandbox_id: str) -> WorkloadPlan | None:
        await self._call("plan", sandbox_id)
        kept = self.content.plans.get(sandbox_id)
        return None if kept is None else msgspec.json.decode(kept, type=WorkloadPlan, dec_hook=decode_hook)

    async def remove(self, sandbox_id: str) -> None:
        def commit() -> None:
            self.content.records.pop(sandbox_id, None)
            self.content.plans.pop(sandbox_id, None)

        await self._call("remove", sandbox_id, commit)

    async def idempotency_keys(self) -> list[IdempotencyKey]:
        await self._call("idempotency_keys", "")
        return list(self.content.keys.values())

    async def forget_keys(self, before: datetime) -> None:
        await self._call("forget_keys", "")

    async def snapshots(self) -> list[SnapshotRecord]:
        await self._call("snapshots", "")
        return list(self.content.snapshots.values())

    async def save_snapshot(self, snapshot: SnapshotRecord) -> None:
        await self._call("save_snapshot", snapshot.id, lambda: self.content.snapshots.update({snapshot.id: snapshot}))

    async def remove_snapshot(self, snapshot_id: str) -> None:
        await self._call("remove_snapshot", snapshot_id, lambda: self.content.snapshots.pop(snapshot_id, None))

    async def pools(self) -> list[PoolRecord]:
        await self._call("pools", "")
        return list(self.content.pools.values())

    async def save_pool(self, pool: PoolRecord) -> None:
        await self._call("save_pool", pool.id, lambda: self.content.pools.update({pool.id: pool}))

    async def remove_pool(self, pool_id: str) -> None:
        await self._call("remove_pool", pool_id, lambda: self.content.pools.pop(pool_id, None))

    async def _call(self, method: str, sandbox_id: str, commit: Callable[[], object] = lambda: None) -> None:
        number = self._boundary.before()
        self.content.tried[method] += 1
        await asyncio.sleep(0)
        outcome = self.content.fault(method, sandbox_id)
        if outcome is not None:
            await outcome
        if self._boundary.dead.is_set():
            raise Killed
        commit()
        self._boundary.done(number)
        await asyncio.sleep(0)


class Recorder(Observer):
    """Remembers every transition that it was told of."""

    name: ClassVar[str] = "recorder"

    def __init__(self) -> None:
        self.told: list[Transition] = []

    def transition(self, event: Transition) -> None:
        self.told.append(event)

    def of(self, sandbox_id: str) -> list[State | None]:
        """The states that this sandbox went through; None is gone."""
        return [event.after for event in self.told if event.record.id == sandbox_id]


class Releases(Networking):
    """Remembers whose network was let go."""

    name: ClassVar[str] = "releases"

    def __init__(self) -> None:
        self.released_ids: list[str] = []

    async def released(self, sandbox_id: str) -> None:
        self.released_ids.append(sandbox_id)


class Server:
    """One process over a world and a disk.

    Args:
        runtimes: by name, the first one the default; None for ``memory`` over ``world`` alone.
    """

    def __init__(
        self,
        world: World | None = None,
        disk: StoreContent | None = None,
        boundary: Boundary | None = None,
        runtimes: Mapping[str, Runtime] | None = None,
        **options: float,
    ) -> None:
        self.world = world or World()
        self.disk = disk or StoreContent()
        self.boundary = boundary or Boundary()
        self.recorder, self.releases = Recorder(), Releases()
        self.runtime = MemoryRuntime(self.world, self.boundary)
        known: dict[str, Runtime] = {"memory": self.runtime} if runtimes is None else dict(runtimes)
        components = Components(
            store=MemoryStore(self.disk, self.boundary),
            runtimes=known,
            default_runtime=next(iter(known)),
            networking=[self.releases],
            observers=[self.recorder],
        )
        settings = Settings(lifecycle=msgspec.convert(options, LifecycleSettings))
        self.lifecycle = SandboxLifecycle(settings, lambda _: components)

    async def __aenter__(self) -> Server:
        await self.lifecycle.start()
        return self

    async def die(self) -> None:
        """``kill -9``: every task but the caller's own ends where it stands, and no call of theirs has an effect."""
        self.boundary.dead.set()
        self.lifecycle._core.expiry.stop()
        asyncio.get_running_loop().set_exception_handler(_bury)
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.world.busy.clear()

    async def __aexit__(self, *_: object) -> None:
        await self.lifecycle.stop(grace=2.0)

    def state(self, sandbox_id: str) -> State | None:
        """The state as readers see it; None when there is no such sandbox."""
        record = self.lifecycle.find(sandbox_id)
        return record.state if record else None

    async def running(self, **changes: object) -> str:
        """A new sandbox, once it runs; returns its id."""
        entry = await self.lifecycle.sandboxes.create(request(**changes))
        await self.lifecycle.sandboxes.wait(entry.record.id, frozenset({State.RUNNING}), 30.0)
        assert self.state(entry.record.id) is State.RUNNING
        return entry.record.id


async def more(tried: Counter[str], method: str, times: int = 2) -> None:
    """Return once a method was called that many more times; the call before the last one has come to its end then."""
    enough = tried[method] + times
    await until(lambda: tried[method] >= enough)


def fails(on: str, error: BaseException) -> Fault:
    """A fault that makes every call of one method raise."""

    def fault(call: str, sandbox_id: str) -> None:
        if call == on:
            raise error

    return fault


def request(**changes: object) -> CreateSandbox:
    """A create request that passes every rule."""
    fields = {"image": ImageSpec(uri="host"), "entrypoint": ["sleep", "1"], "resource_limits": {}, **changes}
    return CreateSandbox(**fields)  # type: ignore[arg-type]  # a test's own fields


def expire_now(server: Server, sandbox_id: str) -> None:
    """Move the expiry of a sandbox into the past, in the store and in the view, and let the scheduler know."""
    lifecycle = server.lifecycle
    record = lifecycle.find(sandbox_id)
    assert record is not None
    past = record.created_at - timedelta(seconds=1)
    expired = replace(record, expires_at=past)
    server.disk.records[sandbox_id] = expired
    lifecycle._core.ledger.restore(expired)
    lifecycle._core.arm(expired)


async def expires_soon(server: Server, sandbox_id: str) -> None:
    """Renew it until a moment from now; on a busy machine that moment may be over before it is asked for."""
    while True:
        with contextlib.suppress(InvalidRequest):
            await server.lifecycle.renew(sandbox_id, datetime.now(UTC) + timedelta(seconds=0.05))
            return
