"""The agent's token, and the wait for an agent that is starting."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import ClassVar

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, World, request
from tests.kernel.lifecycle.test_ingress import DIRECT, PROXY, RECORD, Site

from shoal.errors import Conflict
from shoal.lifecycle import admission
from shoal.lifecycle.agents import pause_after
from shoal.lifecycle.hosts import Hosts
from shoal.lifecycle.ledger import utcnow
from shoal.models.create import parse_create
from shoal.models.sandbox import State
from shoal.models.workload import Phase, Tunnel, Workload
from shoal.plugin.interfaces import (
    AGENT_PORT,
    AGENT_TOKEN_HEADER,
    AGENT_TOKEN_LABEL,
    Agent,
    AgentFiles,
    Endpoint,
    EndpointQuery,
    Ingress,
)
from shoal.view.entry import Entry


class Guarded(Agent):
    name: ClassVar[str] = "guarded"
    takes_token = True

    async def files(self, platform: str) -> AgentFiles | None:
        return None

    def command(self, folder: str) -> list[str]:
        return [folder]


class Open(Guarded):
    takes_token = False


def drawn_up(agent: Agent | None) -> dict[str, str]:
    runtime = MemoryRuntime(World())
    runtime.agent = agent
    return admission.draw_up(parse_create(request()), Hosts({"memory": runtime}, "memory", None).pick({}), None).labels


@pytest.mark.parametrize("agent", [None, Open()])
def test_there_is_no_token_for_an_agent_that_takes_none(agent: Agent | None) -> None:
    assert drawn_up(agent) == {}


def test_each_sandbox_has_a_token_of_its_own() -> None:
    first, second = drawn_up(Guarded()), drawn_up(Guarded())
    assert list(first) == [AGENT_TOKEN_LABEL]
    assert len(first[AGENT_TOKEN_LABEL]) >= 32
    assert first != second


def test_no_repr_tells_a_token() -> None:
    runtime = MemoryRuntime(World())
    runtime.agent = Guarded()
    plan = admission.draw_up(parse_create(request()), Hosts({"memory": runtime}, "memory", None).pick({}), None)
    workload = Workload(id="one", phase=Phase.RUNNING, labels=plan.labels)
    assert plan.labels[AGENT_TOKEN_LABEL] not in f"{plan!r} {workload!r}"


GUARDED = Workload(id="one", phase=Phase.RUNNING, host="127.0.0.1", labels={AGENT_TOKEN_LABEL: "t0k3n"})


@pytest.mark.parametrize(("port", "headers"), [(AGENT_PORT, {AGENT_TOKEN_HEADER: "t0k3n"}), (8080, {})])
async def test_the_token_is_told_for_the_agents_port_alone(port: int, headers: dict[str, str]) -> None:
    site = Site(DIRECT)
    entry = Entry(RECORD, GUARDED)
    site.view.put(entry)
    endpoint = await site.reach.endpoint("one", port, use_server_proxy=False, expires=None, base="b")
    assert endpoint.headers == {"X-Way": "direct", **headers}
    assert site.reach.upstream_headers("one", port) == [
        (name.lower().encode(), value.encode()) for name, value in headers.items()
    ]


class Keeping(Guarded):
    keeps_connections = True


@pytest.mark.parametrize(
    ("agent", "labels", "port", "kept"),
    [
        (Keeping(), GUARDED.labels, AGENT_PORT, True),
        (Keeping(), GUARDED.labels, 8080, False),
        (Keeping(), {}, AGENT_PORT, False),
        (Guarded(), GUARDED.labels, AGENT_PORT, False),
        (None, GUARDED.labels, AGENT_PORT, False),
    ],
    ids=["its own agent", "another port", "another's sandbox", "an agent that closes some", "no agent"],
)
def test_connections_are_kept_to_the_agent_that_the_sandbox_was_made_with(
    agent: Agent | None, labels: dict[str, str], port: int, kept: bool
) -> None:
    site = Site(DIRECT)
    site.runtime.agent = agent
    site.view.put(Entry(RECORD, replace(GUARDED, labels=labels)))
    assert site.reach.keeps_connections("one", port) is kept
    assert not site.reach.keeps_connections("two", port)


@pytest.mark.parametrize(("port", "headers"), [(8000, {AGENT_TOKEN_HEADER: "t0k3n"}), (8080, {})])
@pytest.mark.parametrize("direct", [True, False])
async def test_the_token_is_told_for_ports_that_only_the_agent_leads_to(
    port: int, headers: dict[str, str], direct: bool
) -> None:
    """As in an engine's bridge network: 8080 is published on its own. A server that reaches ports itself needs none."""
    site = Site(Direct())
    published = Workload(
        id="one",
        phase=Phase.RUNNING,
        host="10.0.0.7" if direct else None,
        ports={} if direct else {8080: "127.0.0.1:31001"},
        proxy=None if direct else "127.0.0.1:31000/proxy",
        public_ports={8080: "127.0.0.1:31001"},
        public_proxy="127.0.0.1:31000/proxy",
        labels=GUARDED.labels,
    )
    site.view.put(Entry(RECORD, published))
    endpoint = await site.reach.endpoint("one", port, use_server_proxy=False, expires=None, base="b")
    assert (endpoint.headers or {}) == headers
    wanted = {} if direct else headers
    assert dict(site.reach.upstream_headers("one", port)) == {
        name.lower().encode(): value.encode() for name, value in wanted.items()
    }


class Direct(Ingress):
    """The workload's own address for clients."""

    name = "own"

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """None before it is known."""
        address = query.workload.public_address(query.port)
        return Endpoint(endpoint=address) if address else None


class Starting:
    """A sandbox that has just started; its agent listens when it is told to, at a port that only this test knows."""

    def __init__(self) -> None:
        self.site = Site(PROXY, DIRECT)
        self.site.runtime.agent_starts = True
        self.asked = 0

    async def __aenter__(self) -> Starting:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0, start_serving=False)
        self.port = self._server.sockets[0].getsockname()[1]
        workload = replace(GUARDED, ports={AGENT_PORT: f"127.0.0.1:{self.port}"})
        self.entry = Entry(replace(RECORD, state=State.RUNNING, since=utcnow()), workload)
        self.site.view.put(self.entry)
        return self

    async def listen(self) -> None:
        await self._server.start_serving()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def address(self) -> asyncio.Task[str | Tunnel]:
        return asyncio.create_task(self.site.reach.await_address("one", AGENT_PORT))


async def test_a_request_for_the_agents_port_waits_until_it_answers_and_no_later_one_asks_again() -> None:
    async with Starting() as starting:
        reach = starting.site.reach
        waiting = [starting.address() for _ in range(3)]
        asked = asyncio.create_task(reach.endpoint("one", AGENT_PORT, use_server_proxy=False, expires=None, base="b"))
        await asyncio.sleep(0.05)
        assert reach.address("one", AGENT_PORT) is None
        assert reach.address("one", 8080) == "127.0.0.1:8080"
        assert not any(each.done() for each in [*waiting, asked])
        await starting.listen()
        assert {await each for each in waiting} == {f"127.0.0.1:{starting.port}"}
        await asked
        assert starting.asked == 1
        assert reach.address("one", AGENT_PORT) == f"127.0.0.1:{starting.port}"


async def test_an_endpoint_by_the_servers_proxy_does_not_wait_for_the_agent_whose_wait_has_begun() -> None:
    async with Starting() as starting:
        reach = starting.site.reach
        async with asyncio.timeout(5):  # the wait for an agent has no end here
            await reach.endpoint("one", AGENT_PORT, use_server_proxy=True, expires=None, base="b")
        assert reach.address("one", AGENT_PORT) is None
        held = starting.address()
        await starting.listen()
        assert await held == f"127.0.0.1:{starting.port}"
        assert starting.asked == 1


@pytest.mark.parametrize(("waited", "pause"), [(0, 0.005), (0.04, 0.005), (0.5, 0.05), (9, 0.1)])
def test_the_longer_an_agent_takes_the_less_often_it_is_asked(waited: float, pause: float) -> None:
    assert pause_after(waited) == pytest.approx(pause)


async def test_a_sandbox_that_ends_meanwhile_ends_the_wait() -> None:
    async with Starting() as starting:
        waiting = starting.address()
        await asyncio.sleep(0.05)
        starting.site.view.put(Entry(replace(starting.entry.record, state=State.FAILED), starting.entry.workload))
        with pytest.raises(Conflict):
            await waiting


async def test_an_agent_that_had_its_time_is_not_waited_for() -> None:
    async with Starting() as starting:
        aged = replace(starting.entry.record, since=utcnow() - timedelta(minutes=1))
        starting.site.view.put(Entry(aged, starting.entry.workload))
        assert starting.site.reach.address("one", AGENT_PORT) == f"127.0.0.1:{starting.port}"


async def test_one_waiter_that_leaves_does_not_end_the_wait_of_the_others() -> None:
    async with Starting() as starting:
        leaving, staying = starting.address(), starting.address()
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.sleep(0.05)
        await starting.listen()
        assert await staying == f"127.0.0.1:{starting.port}"


async def test_an_agent_behind_a_tunnel_is_waited_for_through_it() -> None:
    async with Starting() as starting:
        tunnelled = Workload(id="one", phase=Phase.RUNNING, tunnelled=True)
        starting.entry = Entry(starting.entry.record, tunnelled)
        starting.site.view.put(starting.entry)
        dialled: list[tuple[str, int]] = []

        async def connect(sandbox_id: str, port: int) -> socket.socket:
            dialled.append((sandbox_id, port))
            return socket.create_connection(("127.0.0.1", starting.port))

        starting.site.runtime.connect = connect  # type: ignore[method-assign]
        await starting.listen()
        assert await starting.address() == Tunnel("one", AGENT_PORT)
        assert dialled == [("one", AGENT_PORT)]
