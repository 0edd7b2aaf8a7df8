"""The suite that every runtime must pass: what the lifecycle relies on, as tests.

A runtime's author subclasses `RuntimeConformance` and provides one fixture, ``conformance``, that returns a `Harness`
(docs/conformance.md). The tests need pytest and pytest-asyncio in auto mode. They drive the runtime as the engine does:
never two operations on one sandbox at once, and never more than `Runtime.concurrency` altogether.
"""

# ruff: noqa: S101 - this module is a test suite, and asserts are how it speaks
from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from shoal.errors import ShoalError
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import LogQuery, Runtime

LONG = "sleep 600"


@dataclass
class Harness:
    """What the suite needs to know of a runtime.

    Attributes:
        make: a new, unstarted Runtime object over the same engine and state each time, as a restarted server makes it.
        plan: a plan that runs quickly and for long; the suite gives it an id, a command and metadata of its own.
        shell: the command that runs a line of shell in the plan's image.
        listen: a line of shell that answers whoever connects to a TCP port with some bytes; None if the plan's image
            has nothing to do that with. For runtimes whose workloads are ``tunnelled``.
        port: a port whose address is asked for; None if this runtime has no addresses.
        patience: seconds to wait for what the engine does by itself; generous, since only a failure takes that long.
    """

    make: Callable[[], Runtime]
    plan: WorkloadPlan
    shell: Callable[[str], list[str]] = field(default=lambda line: ["sh", "-c", line])
    listen: Callable[[int], str] | None = None
    port: int | None = 8080
    patience: float = 30.0

    def new_plan(self, line: str = LONG, **changes: object) -> WorkloadPlan:
        """A plan under an id of its own that runs ``line``."""
        return replace(
            self.plan, id=str(uuid.uuid4()), created_at=datetime.now(UTC), command=self.shell(line), **changes
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Runtime]:
        """A started runtime; stopped afterwards, its workloads left as they are."""
        runtime = self.make()
        await runtime.start()
        try:
            yield runtime
        finally:
            await runtime.stop()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """A started runtime, and a way to make workloads that are deleted afterwards whatever happens."""
        async with self.started() as runtime:
            session = Session(self, runtime)
            try:
                yield session
            finally:
                for plan in session.plans:
                    with suppress(ShoalError):
                        await runtime.delete(plan.id)


class Session:
    """One runtime in use, and the plans that it was given."""

    def __init__(self, harness: Harness, runtime: Runtime) -> None:
        self.harness = harness
        self.runtime = runtime
        self.plans: list[WorkloadPlan] = []
        self.progress: list[tuple[str, str]] = []

    async def create(self, plan: WorkloadPlan) -> Workload:
        """Create it as the engine would: checked first."""
        self.plans.append(plan)
        await self.runtime.check(plan)
        return await self.runtime.create(plan, lambda reason, message: self.progress.append((reason, message)))

    async def listed(self, sandbox_id: str) -> Workload | None:
        """The workload as `Runtime.list` shows it; None if it is not there."""
        found = [workload for workload in await self.runtime.list() if workload.id == sandbox_id]
        assert len(found) <= 1, f"list() names {sandbox_id} twice"
        return found[0] if found else None

    async def until(self, sandbox_id: str, phase: Phase) -> Workload:
        """The workload, once the list shows it in that phase."""
        deadline = asyncio.get_running_loop().time() + self.harness.patience
        while True:
            seen = await self.listed(sandbox_id)
            if seen is not None and seen.phase is phase:
                return seen
            assert asyncio.get_running_loop().time() < deadline, f"{sandbox_id} never became {phase}; last: {seen}"
            await asyncio.sleep(0.02)


class RuntimeConformance:
    """Subclass this in a test module of your own; every test takes the ``conformance`` fixture."""

    # --- what it says of itself ---

    async def test_names_and_limits(self, conformance: Harness) -> None:
        async with conformance.started() as runtime:
            assert runtime.name
            assert runtime.name == runtime.name.strip()
            assert runtime.scope == runtime.scope.upper()
            assert runtime.concurrency >= 1
            assert runtime.resync_interval > 0
            await runtime.ping()

    # --- create ---

    async def test_create_returns_a_running_workload_that_is_listed(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan()
            made = await session.create(plan)
            assert (made.id, made.phase) == (plan.id, Phase.RUNNING)
            listed = await session.listed(plan.id)
            assert listed is not None
            assert listed.phase is Phase.RUNNING
            assert all(reason and " " not in reason for reason, _ in session.progress)

    async def test_creating_twice_is_one(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan("echo started; " + LONG)
            await session.create(plan)
            again = await session.create(plan)
            assert again.phase is Phase.RUNNING
            assert await session.listed(plan.id) is not None
            await session.runtime.delete(plan.id)
            assert await session.listed(plan.id) is None

    async def test_concurrent_creates_up_to_the_declared_concurrency(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plans = [conformance.new_plan() for _ in range(min(session.runtime.concurrency, 8))]
            made = await asyncio.gather(*map(session.create, plans))
            assert [workload.id for workload in made] == [plan.id for plan in plans]
            assert {plan.id for plan in plans} <= {workload.id for workload in await session.runtime.list()}

    @pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.1])
    async def test_a_cancelled_create_leaves_nothing_once_deleted(self, conformance: Harness, after: float) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan()
            creating = asyncio.create_task(session.create(plan))
            await asyncio.sleep(after)
            creating.cancel()
            await asyncio.gather(creating, return_exceptions=True)
            await session.runtime.delete(plan.id)
            await asyncio.sleep(0.5)  # whatever still went on behind would show by now
            assert await session.listed(plan.id) is None

    async def test_a_command_that_does_not_exist_never_looks_like_running_for_long(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = replace(conformance.new_plan(), command=["/no/such/command/anywhere"])
            try:
                await session.create(plan)
            except ShoalError:
                await session.runtime.delete(plan.id)
                assert await session.listed(plan.id) is None
            else:
                await session.until(plan.id, Phase.FAILED)

    # --- how it ends ---

    @pytest.mark.parametrize(("code", "phase"), [(0, Phase.EXITED), (7, Phase.FAILED)])
    async def test_exit_codes(self, conformance: Harness, code: int, phase: Phase) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan(f"sleep 0.1; exit {code}")
            await session.create(plan)
            ended = await session.until(plan.id, phase)
            if code:
                assert str(code) in f"{ended.message}", "the message of a failed workload names its exit code"

    async def test_delete_is_complete_and_may_be_repeated(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan()
            await session.create(plan)
            for _ in range(2):
                await session.runtime.delete(plan.id)
                assert await session.listed(plan.id) is None

    async def test_deleting_what_never_was_is_success(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            await session.runtime.delete(str(uuid.uuid4()))

    async def test_an_ended_workload_can_be_deleted(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan("exit 3")
            with suppress(ShoalError):
                await session.create(plan)
                await session.until(plan.id, Phase.FAILED)
            await session.runtime.delete(plan.id)
            assert await session.listed(plan.id) is None

    async def test_an_id_can_be_used_again_after_delete(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan()
            await session.create(plan)
            await session.runtime.delete(plan.id)
            assert (await session.create(plan)).phase is Phase.RUNNING

    # --- pause ---

    async def test_pause_and_resume(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            if not session.runtime.capabilities.pause:
                pytest.skip(f"the {session.runtime.name} runtime does not declare pause")
            plan = conformance.new_plan()
            await session.create(plan)
            assert (await session.runtime.pause(plan.id)).phase in (Phase.PAUSED, Phase.PAUSING)
            assert (await session.until(plan.id, Phase.PAUSED)).id == plan.id
            assert (await session.runtime.resume(plan.id)).phase in (Phase.RUNNING, Phase.RESUMING)
            assert (await session.until(plan.id, Phase.RUNNING)).id == plan.id

    async def test_a_repeated_pause_or_resume_ends_in_the_same_phase(self, conformance: Harness) -> None:
        """After a crash the engine repeats the operation that was cut off; it may have happened already."""
        async with conformance.session() as session:
            if not session.runtime.capabilities.pause:
                pytest.skip(f"the {session.runtime.name} runtime does not declare pause")
            plan = conformance.new_plan()
            await session.create(plan)
            for operation, phase in (
                (session.runtime.pause, Phase.PAUSED),
                (session.runtime.resume, Phase.RUNNING),
            ):
                await operation(plan.id)
                with suppress(ShoalError):
                    await operation(plan.id)
                await session.until(plan.id, phase)

    async def test_a_paused_workload_can_be_deleted(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            if not session.runtime.capabilities.pause:
                pytest.skip(f"the {session.runtime.name} runtime does not declare pause")
            plan = conformance.new_plan()
            await session.create(plan)
            await session.runtime.pause(plan.id)
            await session.runtime.delete(plan.id)
            assert await session.listed(plan.id) is None

    async def test_an_unknown_id_is_an_error_or_a_text_and_never_a_crash(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            nobody, runtime = str(uuid.uuid4()), session.runtime
            for text in (runtime.logs(nobody, LogQuery()), runtime.events(nobody, 10), runtime.inspect(nobody)):
                with suppress(ShoalError):
                    assert isinstance(await text, str)
            if runtime.capabilities.pause:
                for change in (runtime.pause(nobody), runtime.resume(nobody)):
                    with pytest.raises(ShoalError):
                        await change
            assert await session.listed(nobody) is None

    # --- how it is followed ---

    async def test_the_watch_tells_what_the_list_shows(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            seen: list[Workload | WorkloadGone] = []

            async def follow() -> None:
                async for change in session.runtime.watch():
                    seen.append(change)  # noqa: PERF401 - the stream never ends; each change must show as it comes

            following = asyncio.create_task(follow())
            try:
                await asyncio.sleep(0.2)
                plan = conformance.new_plan("sleep 0.5; exit 7")
                await session.create(plan)
                await self._heard(
                    conformance,
                    seen,
                    lambda change: isinstance(change, Workload) and change.phase is Phase.FAILED,
                    plan,
                )
                listed = await session.until(plan.id, Phase.FAILED)
                last = [change for change in seen if change.id == plan.id and isinstance(change, Workload)][-1]
                assert (last.phase, last.reason, last.message) == (listed.phase, listed.reason, listed.message)
                await session.runtime.delete(plan.id)
                await self._heard(conformance, seen, lambda change: isinstance(change, WorkloadGone), plan)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)

    async def test_a_cancelled_watch_ends_and_another_begins(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            for _ in range(3):
                following = asyncio.ensure_future(anext(aiter(session.runtime.watch())))
                await asyncio.sleep(0.05)
                following.cancel()
                await asyncio.wait((following,), timeout=conformance.patience)
                assert following.done()

    async def test_a_restarted_server_finds_everything(self, conformance: Harness) -> None:
        expires = datetime.now(UTC) + timedelta(hours=1)
        plan = conformance.new_plan(expires_at=expires, metadata={"suite": "conformance"})
        async with conformance.started() as first:
            await first.create(plan, lambda reason, message: None)
        async with conformance.session() as session:
            session.plans.append(plan)
            found = await session.until(plan.id, Phase.RUNNING)
            if found.adoption is not None:
                assert found.adoption.entrypoint == plan.command
                assert found.adoption.metadata == plan.metadata
                assert found.adoption.expires_at is not None
                assert abs((found.adoption.expires_at - expires).total_seconds()) < 1
            again = await session.create(plan)
            assert again.phase is Phase.RUNNING
            await session.runtime.delete(plan.id)
            assert await session.listed(plan.id) is None

    # --- what it reports ---

    async def test_logs_hold_the_output_and_keep_to_the_tail(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan("for i in 1 2 3 4 5; do echo line-$i; done; " + LONG)
            await session.create(plan)
            deadline = asyncio.get_running_loop().time() + conformance.patience
            while "line-5" not in (text := await session.runtime.logs(plan.id, LogQuery(tail=100))):
                assert asyncio.get_running_loop().time() < deadline, f"the output never came; last: {text!r}"
                await asyncio.sleep(0.05)
            assert "line-1" in text
            tail = await session.runtime.logs(plan.id, LogQuery(tail=2))
            assert "line-5" in tail
            assert "line-3" not in tail

    async def test_events_and_inspect_are_text_about_this_sandbox(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            plan = conformance.new_plan(env={"API_TOKEN": "very-secret-value"})
            await session.create(plan)
            events = await session.runtime.events(plan.id, 3)
            assert len(events.splitlines()) <= 3
            described = await session.runtime.inspect(plan.id)
            assert plan.id in described
            assert "very-secret-value" not in described + events

    async def test_a_running_workload_has_an_address(self, conformance: Harness) -> None:
        if conformance.port is None:
            pytest.skip("this runtime has no addresses")
        async with conformance.session() as session:
            plan = conformance.new_plan()
            made = await session.create(plan)
            address = made.address(conformance.port)
            if made.tunnelled:
                assert made.way(conformance.port) is not None
                return
            assert address is not None
            host, _, port = address.rpartition(":")
            assert host
            assert port.isdecimal()
            listed = await session.listed(plan.id)
            assert listed is not None
            assert listed.address(conformance.port) == address

    async def test_a_tunnelled_workload_is_connected_to(self, conformance: Harness) -> None:
        port = conformance.port
        async with conformance.session() as session:
            plan = conformance.new_plan()
            if port is None or not (await session.create(plan)).tunnelled:
                pytest.skip(f"the workloads of the {session.runtime.name} runtime have addresses")
            with pytest.raises((OSError, ShoalError)):
                await session.runtime.connect(plan.id, port)
            if conformance.listen is None:
                pytest.skip("the suite was given nothing that listens")
            served = conformance.new_plan(conformance.listen(port))
            await session.create(served)
            for _ in range(3):
                assert await self._greeted(conformance, session.runtime, served, port)
            await session.runtime.delete(served.id)
            with pytest.raises((OSError, ShoalError)):
                await session.runtime.connect(served.id, port)

    async def _greeted(self, conformance: Harness, runtime: Runtime, plan: WorkloadPlan, port: int) -> bytes:
        """The first bytes that the port says, once it listens."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + conformance.patience
        while True:
            try:
                sock = await runtime.connect(plan.id, port)
            except OSError:
                assert loop.time() < deadline, "the port never listened"
                await asyncio.sleep(0.05)
                continue
            with sock:
                assert sock.type is socket.SOCK_STREAM
                assert sock.gettimeout() == 0.0, "the socket must not block"
                return await asyncio.wait_for(loop.sock_recv(sock, 64), conformance.patience)

    # --- snapshots ---

    async def test_snapshot_restore_and_delete(self, conformance: Harness) -> None:
        async with conformance.session() as session:
            if not session.runtime.capabilities.snapshots:
                pytest.skip(f"the {session.runtime.name} runtime does not declare snapshots")
            plan, snapshot_id = conformance.new_plan(), str(uuid.uuid4())
            await session.create(plan)
            image = await session.runtime.snapshot(plan.id, snapshot_id)
            assert await session.runtime.snapshot(plan.id, snapshot_id) == image, (
                "repeated after a crash, it is the same"
            )
            restored = conformance.new_plan(image=None, snapshot_id=snapshot_id, snapshot_image=image)
            assert (await session.create(restored)).phase is Phase.RUNNING
            await session.runtime.delete(restored.id)
            for _ in range(2):
                await session.runtime.delete_snapshot(snapshot_id, image)

    async def _heard(
        self,
        conformance: Harness,
        seen: list[Workload | WorkloadGone],
        wanted: Callable[[Workload | WorkloadGone], bool],
        plan: WorkloadPlan,
    ) -> None:
        deadline = asyncio.get_running_loop().time() + conformance.patience
        while not any(change.id == plan.id and wanted(change) for change in list(seen)):
            assert asyncio.get_running_loop().time() < deadline, f"the watch never reported it; seen: {seen}"
            await asyncio.sleep(0.02)
