"""Which ingress is asked for an endpoint, for what it waits, and which headers the endpoint has."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, MemoryStore, StoreContent, World

from shoal.config.settings import LifecycleSettings, Settings
from shoal.errors import Conflict, InternalError, InvalidRequest, NotFound, ShoalError
from shoal.lifecycle.core import Core
from shoal.lifecycle.reach import Reach
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.plugin.components import Components
from shoal.plugin.interfaces import Access, Capabilities, Endpoint, EndpointQuery, Ingress, Networking, Renewal
from shoal.view.entry import Entry
from shoal.view.index import View

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = SandboxRecord(
    id="one", runtime="memory", state=State.RUNNING, since=NOW, created_at=NOW, entrypoint=["sleep", "1"]
)
ADDRESSED = Workload(id="one", phase=Phase.RUNNING, host="10.0.0.9", headers={"X-Workload": "w"})
BARE = Workload(id="one", phase=Phase.PENDING)


class Way(Ingress):
    """Answers with its name, or with the address if it needs one."""

    def __init__(self, name: str, priority: int, *, signs: bool = False, bare: bool = False, proxies: bool = False):
        self.name = name  # type: ignore[misc]  # one class for several ingresses
        self.priority, self.signs, self._bare, self._proxies = priority, signs, bare, proxies

    def needs_address(self, query: EndpointQuery) -> bool:
        return not self._bare and query.use_server_proxy == self._proxies

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        if query.use_server_proxy != self._proxies:
            return None
        assert self._bare or query.internal_address is not None
        return Endpoint(endpoint=f"{self.name} {query.internal_address}", headers={"X-Way": self.name})


class Tokens(Networking):
    """Every sandbox has an access token, and a header for port 80."""

    name = "tokens"

    def headers(self, workload: Workload, port: int) -> dict[str, str]:
        return {"X-Port": "80"} if port == 80 else {}

    def access_token(self, workload: Workload) -> str | None:
        return "token"


class Waker(Renewal):
    """Wakes a sandbox, which then has an address."""

    name = "waker"

    def __init__(self, view: View) -> None:
        self._view = view

    def accessed(self, access: Access) -> None:
        pass

    async def wake(self, record: SandboxRecord) -> bool:
        self._view.put(Entry(replace(record, state=State.RUNNING), ADDRESSED))
        return True


class Site:
    """A reach over a view with one sandbox."""

    def __init__(
        self, *ways: Ingress, networking: list[Networking] | None = None, signed: bool = False, sleeper: bool = False
    ) -> None:
        runtime = self.runtime = MemoryRuntime(World())
        runtime.capabilities = Capabilities(signed_endpoints=signed)
        self.view = View()
        settings = Settings(lifecycle=LifecycleSettings(endpoint_wait_seconds=0.05))
        components = Components(
            store=MemoryStore(StoreContent()),
            runtimes={"memory": runtime},
            default_runtime="memory",
            networking=networking or [],
            ingresses=list(ways),
            renewals=[Waker(self.view)] if sleeper else [],
        )
        self.reach = Reach(Core(settings, components, self.view, lambda _: None))

    async def ask(self, state: State, workload: Workload | None, **query: bool | int) -> Endpoint:
        entry = Entry(replace(RECORD, state=state), workload)
        self.view.put(entry)
        use_server_proxy, expires = bool(query.get("proxy")), query.get("expires")
        return await self.reach.endpoint("one", 80, use_server_proxy=use_server_proxy, expires=expires, base="b")


PROXY, DIRECT = Way("proxy", 100, proxies=True), Way("direct", 0)
GATEWAY = Way("gateway", 10, signs=True, bare=True)


async def test_the_first_with_an_answer_wins() -> None:
    world = Site(PROXY, GATEWAY, DIRECT)
    assert (await world.ask(State.RUNNING, ADDRESSED)).endpoint == "gateway 10.0.0.9:80"
    assert (await world.ask(State.RUNNING, ADDRESSED, proxy=True)).endpoint == "proxy 10.0.0.9:80"


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.PAUSED, State.RESUMING])
async def test_one_that_can_do_without_an_address_waits_for_none(state: State) -> None:
    assert (await Site(PROXY, GATEWAY, DIRECT).ask(state, BARE)).endpoint == "gateway None"


async def test_it_waits_for_the_workload_which_may_hold_a_token() -> None:
    world = Site(GATEWAY, networking=[Tokens()])
    asked = asyncio.ensure_future(world.ask(State.PENDING, None))
    await asyncio.sleep(0)
    assert not asked.done()
    world.view.put(Entry(replace(RECORD, state=State.PENDING), BARE))
    assert (await asked).headers == {"X-Way": "gateway", "OpenSandbox-Secure-Access": "token", "X-Port": "80"}


async def test_at_the_bound_the_answer_is_what_clients_poll_on() -> None:
    for way, workload in ((GATEWAY, None), (DIRECT, BARE)):
        with pytest.raises(NotFound) as caught:
            await Site(way).ask(State.PENDING, workload)
        assert caught.value.code == codes.ADDRESS_NOT_READY


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        (State.FAILED, 500, "MEMORY::SANDBOX_FAILED"),
        (State.TERMINATED, 404, "MEMORY::SANDBOX_NOT_RUNNING"),
        (State.STOPPING, 404, "MEMORY::SANDBOX_NOT_RUNNING"),
    ],
)
async def test_a_sandbox_that_has_ended_has_no_endpoint(state: State, status: int, code: str) -> None:
    for way in (GATEWAY, DIRECT):
        with pytest.raises(ShoalError) as caught:
            await Site(way).ask(state, ADDRESSED)
        assert (caught.value.status, caught.value.code) == (status, code)


async def test_an_endpoint_has_every_header_that_the_port_wants() -> None:
    world = Site(DIRECT, networking=[Tokens()])
    assert (await world.ask(State.RUNNING, ADDRESSED)).headers == {
        "X-Way": "direct",
        "X-Workload": "w",
        "X-Port": "80",
        "OpenSandbox-Secure-Access": "token",
    }


@pytest.fixture(params=["OpenSandbox-Secure-Access", "opensandbox-secure-access"])
def guarded(request: pytest.FixtureRequest) -> Workload:
    """A workload whose runtime knows its token."""
    return replace(ADDRESSED, headers={request.param: "token"})


async def test_a_signature_stands_for_the_token(guarded: Workload) -> None:
    world = Site(GATEWAY, networking=[Tokens()])
    assert (await world.ask(State.RUNNING, guarded, expires=9)).headers == {"X-Way": "gateway", "X-Port": "80"}


async def test_only_those_that_sign_are_asked_to() -> None:
    world = Site(Way("loud", 99), GATEWAY)
    assert (await world.ask(State.RUNNING, ADDRESSED, expires=9)).endpoint == "gateway 10.0.0.9:80"


@pytest.mark.parametrize(("signed", "code"), [(True, codes.INVALID_PARAMETER), (False, codes.API_NOT_SUPPORTED)])
async def test_where_nobody_signs_the_runtime_decides_which_code(signed: bool, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await Site(DIRECT, signed=signed).ask(State.RUNNING, ADDRESSED, expires=9)
    assert caught.value.code == code


async def test_no_ingress_at_all_is_our_own_fault() -> None:
    with pytest.raises(InternalError):
        await Site(PROXY).ask(State.RUNNING, ADDRESSED)


async def test_the_proxy_is_told_what_callers_must_present() -> None:
    world = Site(networking=[Tokens()])
    world.view.put(Entry(RECORD, ADDRESSED))
    assert world.reach.upstream_headers("one", 80) == [(b"x-workload", b"w"), (b"opensandbox-secure-access", b"token")]
    assert world.reach.upstream_headers("two", 80) == []


async def test_a_paused_sandbox_that_lost_its_address_is_woken_for_it() -> None:
    """As on a cluster, where pausing removes the pod."""
    asleep = Entry(replace(RECORD, state=State.PAUSED), replace(BARE, phase=Phase.PAUSED))
    site = Site(sleeper=True)
    site.view.put(asleep)
    with pytest.raises(Conflict):
        await site.reach.await_address("one", 80, wake=False)
    assert await site.reach.await_address("one", 80) == "10.0.0.9:80"
