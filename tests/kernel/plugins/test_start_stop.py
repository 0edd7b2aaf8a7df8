"""A component whose `start`, `list` or `stop` raises, hangs or exits is named, and takes nothing else down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from tests.kernel.lifecycle.fakes import MemoryRuntime, MemoryStore, StoreContent, World
from tests.support.waiting import until

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.errors import ConfigError, Unavailable
from shoal.models.workload import Workload
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import (
    Authenticator,
    AuthRequest,
    Component,
    Observer,
    Principal,
    Runtime,
    Store,
    Transition,
)

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}
Act = Callable[[], Coroutine[Any, Any, None]]


async def well() -> None:
    return None


async def raises() -> None:
    raise RuntimeError("no coral")


async def says_why() -> None:
    raise Unavailable("REEF::AWAY", "The reef is away.")


async def hangs() -> None:
    await asyncio.Event().wait()


async def hangs_on() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if stubborn.is_set():
                return


async def exits() -> None:
    raise SystemExit(3)


async def cancels() -> None:
    raise asyncio.CancelledError


class Odd(BaseException):
    """Of no family at all."""


async def is_odd() -> None:
    raise Odd("odd")


HANG_SECONDS = 2.0
stubborn = asyncio.Event()
ACTS = {
    raises: "failed in {}: RuntimeError: no coral",
    says_why: "failed in {}: REEF::AWAY: The reef is away.",
    hangs: "did not return from {} within 2 s",
    exits: "failed in {}: SystemExit: 3",
    cancels: "failed in {}: CancelledError",
    is_odd: "failed in {}: Odd: odd",
}
each_act = pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)


class Sick(MemoryRuntime):
    """Behaves as its attributes say, and as a healthy runtime where they say nothing."""

    name = "sick"
    scope = "SICK"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.on_start: Act = well
        self.on_list: Act = well
        self.on_stop: Act = well

    async def start(self) -> None:
        await self.on_start()

    async def stop(self) -> None:
        await self.on_stop()

    async def list(self) -> list[Workload]:
        await self.on_list()
        return await super().list()


class Plugin:
    def __init__(self, *components: Component) -> None:
        self._components = components

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [each for each in self._components if isinstance(each, Runtime)]

    @hookimpl
    def shoal_register_store(self) -> Store | None:
        return next((each for each in self._components if isinstance(each, Store)), None)

    @hookimpl
    def shoal_register_observers(self) -> list[Observer]:
        return [each for each in self._components if isinstance(each, Observer)]

    @hookimpl
    def shoal_register_authenticators(self) -> list[Authenticator]:
        return [each for each in self._components if isinstance(each, Authenticator)]


class Site:
    """A server with a healthy runtime and a plugin of a stranger, on one disk."""

    def __init__(self, patience: float) -> None:
        self.healthy, self.sick, self.disk = MemoryRuntime(World()), Sick(World()), StoreContent()
        self._raw: dict[str, Any] = {
            "server": {"host": "127.0.0.1", "timeout_graceful_shutdown": 1},
            "store": {"type": "memory"},
            "runtime": {"type": "memory"},
            "plugins": {
                "enabled": ["well", "reef"],
                "start_timeout_seconds": patience,
                "stop_timeout_seconds": patience,
            },
        }

    @asynccontextmanager
    async def server(self, *more: Component) -> AsyncIterator[httpx.AsyncClient]:
        server = Shoal(
            Loaded(raw=self._raw),
            {"well": Plugin(self.healthy, MemoryStore(self.disk)), "reef": Plugin(self.sick, *more)},
        )
        await server.start()
        try:
            transport = httpx.ASGITransport(server.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as client:
                yield client
        finally:
            await server.stop()


@pytest.fixture
def site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Patient, but where the test is about something that hangs."""
    monkeypatch.setattr("shoal.lifecycle.arrivals.BACKOFF_FIRST", 0.01)
    monkeypatch.setattr("shoal.openings.BACKOFF_FIRST", 0.01)
    monkeypatch.setattr("shoal.readiness.MAX_AGE", 0.0)
    hanging = "hangs" in request.node.name or "stubborn" in request.node.name
    return Site(HANG_SECONDS if hanging else 60.0)


async def create(client: httpx.AsyncClient, runtime: str) -> str:
    answer = await client.post("/sandboxes", json={**BODY, "extensions": {"runtime": runtime}})
    sandbox_id = str(answer.json()["id"])
    assert (await client.get(f"/sandboxes/{sandbox_id}?wait=Running")).json()["status"]["state"] == "Running"
    return sandbox_id


async def status(client: httpx.AsyncClient, sandbox_id: str) -> dict[str, str]:
    found: dict[str, str] = (await client.get(f"/sandboxes/{sandbox_id}")).json()["status"]
    return found


@each_act
@pytest.mark.parametrize("method", ["start", "list"])
async def test_a_runtime_that_does_not_come_up_leaves_the_others_alone(site: Site, act: Act, method: str) -> None:
    async with site.server() as client:
        theirs, ours = await create(client, "sick"), await create(client, "memory")
    setattr(site.sick, f"on_{method}", act)
    with capture_logs() as logs:
        async with site.server() as client:
            assert (await status(client, ours))["state"] == "Running"
            await create(client, "memory")
            await seen_unknown(client, theirs)
            setattr(site.sick, f"on_{method}", well)
            waited = await client.get(f"/sandboxes/{theirs}?wait=Running&timeout=30")
            assert waited.json()["status"]["state"] == "Running"
            assert (await client.get("http://localhost/ready")).status_code == 200
            assert (await client.delete(f"/sandboxes/{theirs}")).status_code == 204
    lines = [entry["error"] for entry in logs if entry["event"].startswith("a runtime does not answer")]
    assert lines == ["plugin 'reef': the runtime 'sick' " + ACTS[act].format(method)]


async def seen_unknown(client: httpx.AsyncClient, sandbox_id: str) -> None:
    """What readers and callers are told of a sandbox whose runtime is away."""
    told = await status(client, sandbox_id)
    assert (told["state"], told["reason"]) == ("Unknown", "RUNTIME_UNAVAILABLE")
    assert told["message"].startswith("The runtime 'sick' has not answered yet: ")
    assert told["message"].endswith("Its last known state is Running.")
    listed = (await client.get("/sandboxes?state=unknown")).json()["items"]
    assert [item["id"] for item in listed] == [sandbox_id]
    assert (await client.get("/sandboxes?state=running")).json()["pagination"]["totalItems"] == 2
    for answer in (
        await client.get(f"/sandboxes/{sandbox_id}/endpoints/80"),
        await client.get(f"/sandboxes/{sandbox_id}/proxy/80/"),
        await client.delete(f"/sandboxes/{sandbox_id}"),
        await client.post(f"/sandboxes/{sandbox_id}/pause"),
        await client.post("/sandboxes", json={**BODY, "extensions": {"runtime": "sick"}}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "RUNTIME::UNAVAILABLE")
    ready = await client.get("http://localhost/ready")
    assert ready.status_code == 503
    components = ready.json()["components"]
    assert components["well/runtime/memory"] == "ok"
    assert components["reef/runtime/sick"] != "ok"
    assert "coral" not in ready.text + told["message"]


@each_act
async def test_a_runtime_that_does_not_list_any_more_is_not_waited_for(site: Site, act: Act) -> None:
    site.sick.resync_interval = 0.02
    with capture_logs() as logs:
        async with site.server() as client:
            theirs = await create(client, "sick")
            site.sick.on_list = act
            await until(lambda: any(entry["event"].startswith("comparison failed") for entry in logs))
            assert (await status(client, theirs))["state"] == "Running"
            site.sick.on_list = well
            await until(lambda: any(entry["event"] == "comparison works again" for entry in logs))


@each_act
async def test_a_component_that_does_not_stop_is_named_and_left(site: Site, act: Act) -> None:
    site.sick.on_stop = act
    with capture_logs() as logs:
        async with site.server() as client:
            await create(client, "memory")
    lines = [entry["error"] for entry in logs if entry["event"] == "a component did not stop"]
    assert lines == ["plugin 'reef': the runtime 'sick' " + ACTS[act].format("stop")]


async def test_one_that_is_stubborn_is_left_behind(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.plugin.calls.LAST_SECONDS", 0.01)
    site.sick.on_start = hangs_on
    async with site.server() as client:
        assert (await client.get("http://localhost/ready")).status_code == 503
    stubborn.set()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert left != set()
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    stubborn.clear()


async def test_a_list_of_something_else_is_named(site: Site) -> None:
    class Wrong(Sick):
        async def list(self) -> list[Workload]:
            return ["workload"]  # type: ignore[list-item]  # that is the mistake

    site.sick = Wrong(World())
    with capture_logs() as logs:
        async with site.server() as client:
            assert (await client.get("http://localhost/ready")).status_code == 503
    [line] = {entry["error"] for entry in logs if entry["event"].startswith("a runtime does not answer")}
    assert line == "plugin 'reef': the runtime 'sick' failed in list: TypeError: list must return a list of Workload"


async def test_a_pending_create_goes_on_once_its_runtime_answers(site: Site) -> None:
    async with site.server() as client:
        site.sick.world.fault = lambda call, _: hangs() if call == "create" else None
        answer = await client.post("/sandboxes", json={**BODY, "extensions": {"runtime": "sick"}})
    site.sick.world = World()
    site.sick.on_start = raises
    async with site.server() as client:
        told = await status(client, answer.json()["id"])
        assert (told["state"], told["reason"]) == ("Pending", "RUNTIME_UNAVAILABLE")
        site.sick.on_start = well
        waited = await client.get(f"/sandboxes/{answer.json()['id']}?wait=Running&timeout=30")
        assert waited.json()["status"]["state"] == "Running"


async def test_a_configuration_error_stops_the_start_where_no_other_runtime_is_up(site: Site) -> None:
    async def misconfigured() -> None:
        raise ConfigError("reef.depth: too deep")

    site.sick.on_start = misconfigured
    async with site.server() as client:
        reason = (await client.get("http://localhost/ready")).json()["components"]["reef/runtime/sick"]
        assert reason == "it could not be started, and the log of the server says why"
    site.healthy.start = misconfigured  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"^reef\.depth: too deep\nreef\.depth: too deep$"):
        async with site.server():
            pass


class Listener(Observer):
    name = "listener"

    def __init__(self) -> None:
        self.on_start: Act = well
        self.told: list[Transition] = []

    async def start(self) -> None:
        await self.on_start()

    def transition(self, event: Transition) -> None:
        self.told.append(event)


@each_act
async def test_an_observer_that_does_not_start_is_left_out_until_it_does(site: Site, act: Act) -> None:
    listener = Listener()
    listener.on_start = act
    with capture_logs() as logs:
        async with site.server(listener) as client:
            await create(client, "memory")
            assert listener.told == []
            assert "reef/observer/listener" in (await client.get("http://localhost/ready")).json()["message"]
            listener.on_start = well
            await until(lambda: any(entry["event"].startswith("a component has started") for entry in logs))
            await create(client, "memory")
            assert listener.told != []
    lines = [entry["error"] for entry in logs if entry["event"].startswith("a component did not start")]
    assert lines == ["plugin 'reef': the observer 'listener' " + ACTS[act].format("start")]


@each_act
async def test_without_an_authenticator_the_server_does_not_start(site: Site, act: Act) -> None:
    class Guard(Authenticator):
        name = "guard"

        async def start(self) -> None:
            await act()

        async def authenticate(self, request: AuthRequest) -> Principal | None:
            return None

    with pytest.raises(ConfigError) as caught:
        async with site.server(Guard()):
            pass
    assert str(caught.value) == "plugin 'reef': the authenticator 'guard' " + ACTS[act].format("start")


@pytest.mark.parametrize("error", [RuntimeError("x"), asyncio.CancelledError(), SystemExit(1), Odd(), GeneratorExit()])
async def test_whatever_an_observer_raises_changes_nothing(site: Site, error: BaseException) -> None:
    class Loud(Listener):
        def transition(self, event: Transition) -> None:
            raise error

    later = Listener()
    later.name = "later"  # type: ignore[misc]  # one class, two names
    with capture_logs() as logs:
        async with site.server(Loud(), later) as client:
            sandbox_id = await create(client, "memory")
            assert (await client.delete(f"/sandboxes/{sandbox_id}")).status_code == 204
    assert [event.after for event in later.told] == ["Pending", "Running", "Stopping", None]
    named = [entry for entry in logs if entry["event"] == "a plugin failed to take note"]
    assert {(entry["plugin"], entry["component"], entry["method"]) for entry in named} == {
        ("reef", "listener", "transition")
    }
