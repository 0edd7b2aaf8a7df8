"""Addresses and endpoints, while a sandbox is on its way and when it is not."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import Server

from shoal.errors import Conflict, InternalError, InvalidRequest, NotFound
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Tunnel, Workload
from shoal.view.entry import Entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = SandboxRecord(
    id="one", runtime="memory", state=State.PENDING, since=NOW, created_at=NOW, entrypoint=["sleep", "1"]
)
WORKLOAD = Workload(id="one", phase=Phase.RUNNING, host="10.0.0.9")
TUNNELLED = Workload(id="one", phase=Phase.RUNNING, tunnelled=True)


async def test_an_address_known_before_the_state_is_waited_for() -> None:
    async with Server() as server:
        view = server.lifecycle.view
        view.put(Entry(PENDING, WORKLOAD))
        asked = asyncio.ensure_future(server.lifecycle.reach.await_address("one", 80))
        await asyncio.sleep(0)
        assert not asked.done()
        view.put(Entry(replace(PENDING, state=State.RUNNING), WORKLOAD))
        assert await asked == "10.0.0.9:80"
        view.remove("one")


@pytest.mark.parametrize("state", [State.PAUSED, State.FAILED, State.TERMINATED, State.STOPPING, State.PAUSING])
async def test_a_sandbox_that_does_not_run_is_not_proxied_to(state: State) -> None:
    async with Server() as server:
        server.lifecycle.view.put(Entry(replace(PENDING, state=state), WORKLOAD))
        with pytest.raises(Conflict, match=state.value):
            await server.lifecycle.reach.await_address("one", 80)
        server.lifecycle.view.remove("one")


async def test_at_the_bound_a_pending_sandbox_answers_what_clients_poll_on() -> None:
    async with Server(endpoint_wait_seconds=0.01) as server:
        server.lifecycle.view.put(Entry(PENDING))
        with pytest.raises(NotFound) as caught:
            await server.lifecycle.reach.endpoint("one", 80, use_server_proxy=False, expires=None, base="x")
        assert caught.value.code == codes.ADDRESS_NOT_READY
        server.lifecycle.view.remove("one")


async def test_a_question_without_an_answer_is_refused_before_any_look_up() -> None:
    async with Server() as server:
        with pytest.raises(InvalidRequest):
            await server.lifecycle.reach.endpoint("none", 80, use_server_proxy=True, expires=1, base="x")
        with pytest.raises(InvalidRequest) as caught:
            await server.lifecycle.reach.endpoint("none", 65536, use_server_proxy=False, expires=None, base="x")
        assert caught.value.code == codes.INVALID_PORT


async def test_a_tunnelled_sandbox_is_reached_through_its_runtime() -> None:
    async with Server() as server:
        server.lifecycle.view.put(Entry(replace(PENDING, state=State.RUNNING), TUNNELLED))
        assert server.lifecycle.reach.address("one", 80) == Tunnel("one", 80)
        mine, theirs = socket.socketpair()
        with theirs:
            calls = _connecting(server, lambda: mine)
            async with asyncio.timeout(30):
                given = await server.lifecycle.reach.connect(Tunnel("one", 80))
            assert (given, given.gettimeout(), calls) == (mine, 0.0, [("one", 80)])
            given.close()
        server.lifecycle.view.remove("one")
        with pytest.raises(OSError, match="gone"):
            await server.lifecycle.reach.connect(Tunnel("one", 80))


@pytest.mark.parametrize("wrong", [None, RuntimeError("secret"), ConnectionRefusedError()])
async def test_a_runtime_that_connects_to_nothing_is_told_apart_from_a_port_that_is_closed(wrong: object) -> None:
    def answer() -> object:
        if isinstance(wrong, Exception):
            raise wrong
        return wrong

    async with Server() as server:
        server.lifecycle.view.put(Entry(replace(PENDING, state=State.RUNNING), TUNNELLED))
        _connecting(server, answer)
        expected = OSError if isinstance(wrong, OSError) else InternalError
        with pytest.raises(expected) as caught:
            await server.lifecycle.reach.connect(Tunnel("one", 80))
        assert "secret" not in str(caught.value)
        server.lifecycle.view.remove("one")


def _connecting(server: Server, answer: Callable[[], object]) -> list[tuple[str, int]]:
    """Let the runtime of ``server`` answer a `Runtime.connect`; its calls."""
    calls: list[tuple[str, int]] = []

    async def connect(sandbox_id: str, port: int) -> object:
        calls.append((sandbox_id, port))
        return answer()

    server.runtime.connect = connect  # type: ignore[method-assign,assignment]
    return calls
