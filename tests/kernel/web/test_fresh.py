"""A read of a sandbox that was created a moment ago waits for it, briefly and only while nothing is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from tests.kernel.web.wired import Web
from tests.support.waiting import until

from shoal.config.settings import LifecycleSettings, Settings
from shoal.models.sandbox import ACCEPTED, State
from shoal.view.entry import Entry

Connect = Callable[[], httpx.AsyncClient]


def change(web: Web, sandbox_id: str, **changes: Any) -> None:
    web.sandboxes.view.put(Entry(replace(web.sandboxes.entry(sandbox_id).record, **changes)))


def fresh(web: Web, age: timedelta = timedelta()) -> str:
    record = web.sandboxes.entry(web.sandboxes.add(State.PENDING)).record
    web.sandboxes.view.remove(record.id)
    web.sandboxes.view.put(Entry(replace(record, reason=ACCEPTED, created_at=datetime.now(UTC) - age)))
    return record.id


def bound(web: Web, seconds: float) -> None:
    web.settings = Settings(lifecycle=LifecycleSettings(fresh_read_wait_seconds=seconds))


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"state": State.RUNNING, "reason": None}, "Running"),
        ({"state": State.FAILED, "reason": "NO_SUCH_IMAGE"}, "Failed"),
        ({"reason": "PULLING"}, "Pending"),
    ],
)
async def test_it_is_answered_as_soon_as_something_is_known(
    web: Web, connect: Connect, changes: dict[str, Any], seen: str
) -> None:
    bound(web, 10)
    made = fresh(web)
    client = connect()
    asked = asyncio.ensure_future(client.get(f"/v1/sandboxes/{made}"))
    await until(lambda: "begun" in web.sandboxes.calls)
    assert not asked.done()
    change(web, made, **changes)
    assert (await asked).json()["status"]["state"] == seen


async def test_one_that_is_removed_meanwhile_is_a_404(web: Web, connect: Connect) -> None:
    bound(web, 10)
    made = fresh(web)
    client = connect()
    asked = asyncio.ensure_future(client.get(f"/v1/sandboxes/{made}"))
    await until(lambda: "begun" in web.sandboxes.calls)
    web.sandboxes.view.remove(made)
    assert (await asked).status_code == 404


async def test_at_the_bound_it_reads_pending(web: Web, connect: Connect) -> None:
    bound(web, 0.05)
    answer = await connect().get(f"/v1/sandboxes/{fresh(web)}")
    assert answer.json()["status"]["state"] == "Pending"
    assert "begun" in web.sandboxes.calls


async def test_the_bound_counts_from_the_create(web: Web, connect: Connect) -> None:
    bound(web, 10)
    old = fresh(web, age=timedelta(seconds=11))
    assert (await connect().get(f"/v1/sandboxes/{old}")).json()["status"]["state"] == "Pending"
    assert "begun" not in web.sandboxes.calls


async def test_a_clock_that_was_set_back_makes_nobody_wait_longer(web: Web, connect: Connect) -> None:
    bound(web, 0.05)
    early = fresh(web, age=timedelta(hours=-1))
    assert (await connect().get(f"/v1/sandboxes/{early}")).json()["status"]["state"] == "Pending"
    assert web.sandboxes.calls["begun"] == 0.05


async def test_it_can_be_switched_off_and_a_list_never_waits(web: Web, connect: Connect) -> None:
    bound(web, 0)
    client = connect()
    assert (await client.get(f"/v1/sandboxes/{fresh(web)}")).json()["status"]["state"] == "Pending"
    bound(web, 10)
    assert (await connect().get("/v1/sandboxes")).json()["items"][0]["status"]["state"] == "Pending"
    assert "begun" not in web.sandboxes.calls
