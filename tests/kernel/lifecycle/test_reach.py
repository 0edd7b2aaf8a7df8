"""Addresses and endpoints, while a sandbox is on its way and when it is not."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import Server

from shoal.errors import Conflict, InvalidRequest, NotFound
from shoal.models import codes
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.view.entry import Entry

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = SandboxRecord(
    id="one", runtime="memory", state=State.PENDING, since=NOW, created_at=NOW, entrypoint=["sleep", "1"]
)
WORKLOAD = Workload(id="one", phase=Phase.RUNNING, host="10.0.0.9")


async def test_an_address_known_before_the_state_is_waited_for() -> None:
    async with Server() as server:
        view = server.lifecycle.view
        view.put(Entry(PENDING, WORKLOAD))
        asked = asyncio.ensure_future(server.lifecycle.await_address("one", 80))
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
            await server.lifecycle.await_address("one", 80)
        server.lifecycle.view.remove("one")


async def test_at_the_bound_a_pending_sandbox_answers_what_clients_poll_on() -> None:
    async with Server(endpoint_wait_seconds=0.01) as server:
        server.lifecycle.view.put(Entry(PENDING))
        with pytest.raises(NotFound) as caught:
            await server.lifecycle.endpoint("one", 80, use_server_proxy=False, expires=None, base="x")
        assert caught.value.code == codes.ADDRESS_NOT_READY
        server.lifecycle.view.remove("one")


async def test_a_question_without_an_answer_is_refused_before_any_look_up() -> None:
    async with Server() as server:
        with pytest.raises(InvalidRequest):
            await server.lifecycle.endpoint("none", 80, use_server_proxy=True, expires=1, base="x")
        with pytest.raises(InvalidRequest) as caught:
            await server.lifecycle.endpoint("none", 65536, use_server_proxy=False, expires=None, base="x")
        assert caught.value.code == codes.INVALID_PORT
