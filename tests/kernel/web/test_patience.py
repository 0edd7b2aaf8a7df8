"""An endpoint of a sandbox that is being made: SDKs that end their create at "not yet" are held until it is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest
from msgspec.structs import replace
from tests.kernel.web.wired import Web
from tests.support.waiting import until

from shoal.config.settings import LifecycleSettings, Settings
from shoal.models.sandbox import State
from shoal.view.entry import Entry
from shoal.web.agents import asks_again

Connect = Callable[[], httpx.AsyncClient]
IMPATIENT = [
    "OpenSandbox-Python-SDK/0.1.7",
    "OpenSandbox-Python-SDK/0.1.16",
    "OpenSandbox-JS-SDK/0.1.8",
    "OpenSandbox-Kotlin-SDK/1.0.12",
    "OpenSandbox-Go-SDK/1.0.2",
    "OpenSandbox-CSharp-SDK/0.1.2",
    "OpenSandbox-JS-SDK/1.1.0",
    "agent/1 OpenSandbox-Python-SDK/1.0.99 more",
]
PATIENT = [None, "", "curl/8.0", "OpenSandbox-Python-SDK/1.1.0", "OpenSandbox-Python-SDK/2.0", "OpenSandbox-X-SDK/dev"]


@pytest.mark.parametrize("agent", IMPATIENT)
def test_an_sdk_that_ends_its_create_does_not_ask_again(agent: str) -> None:
    assert not asks_again(agent)


@pytest.mark.parametrize("agent", PATIENT)
def test_whoever_is_not_known_to_give_up_asks_again(agent: str | None) -> None:
    assert asks_again(agent)


@pytest.mark.parametrize("agent", IMPATIENT)
@pytest.mark.parametrize("query", ["", "?use_server_proxy=true"])
async def test_it_is_held_until_the_sandbox_is_made(web: Web, connect: Connect, agent: str, query: str) -> None:
    made = web.sandboxes.add(State.PENDING)
    path = f"/v1/sandboxes/{made}/endpoints/44772{query}"
    asked = asyncio.ensure_future(connect().get(path, headers={"User-Agent": agent}))
    await until(lambda: "wait" in web.sandboxes.calls)
    assert not asked.done()
    assert "endpoint" not in web.sandboxes.calls
    web.sandboxes.view.put(Entry(replace(web.sandboxes.entry(made).record, state=State.RUNNING)))
    assert (await asked).status_code == 200


@pytest.mark.parametrize("agent", ["OpenSandbox-Python-SDK/1.1.1", "curl/8.0"])
async def test_whoever_asks_again_is_answered_as_before(web: Web, connect: Connect, agent: str) -> None:
    made = web.sandboxes.add(State.PENDING)
    answer = await connect().get(f"/v1/sandboxes/{made}/endpoints/44772", headers={"User-Agent": agent})
    assert answer.status_code == 200
    assert "wait" not in web.sandboxes.calls


async def test_the_longest_wait_bounds_it(web: Web, connect: Connect) -> None:
    web.settings = Settings(lifecycle=LifecycleSettings(wait_limit_seconds=0.05))
    made = web.sandboxes.add(State.PENDING)
    headers = {"User-Agent": IMPATIENT[0]}
    assert (await connect().get(f"/v1/sandboxes/{made}/endpoints/80", headers=headers)).status_code == 200
    assert web.sandboxes.calls["wait"] == (frozenset(State) - {State.PENDING}, 0.05)


async def test_one_that_is_deleted_meanwhile_is_a_404(web: Web, connect: Connect) -> None:
    made = web.sandboxes.add(State.PENDING)
    headers = {"User-Agent": IMPATIENT[0]}
    asked = asyncio.ensure_future(connect().get(f"/v1/sandboxes/{made}/endpoints/80", headers=headers))
    await until(lambda: "wait" in web.sandboxes.calls)
    web.sandboxes.view.remove(made)
    assert (await asked).status_code == 404
