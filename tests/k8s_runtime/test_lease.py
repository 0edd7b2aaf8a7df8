"""Leadership against a real API server: never two at once, handed over at a stop, taken over after a death."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.waiting import until

from shoal_k8s.api import KubeClient
from shoal_k8s.lease import LEASE_SECONDS, Leadership

pytestmark = pytest.mark.needs("k8s")


async def test_one_holds_it_and_hands_it_over_when_it_stops(client: KubeClient, namespace: str) -> None:
    gained: list[str] = []
    first = Leadership(client, namespace, "expiry", "one", gained=lambda: gained.append("one"))
    second = Leadership(client, namespace, "expiry", "two", gained=lambda: gained.append("two"))
    await first.start()
    await second.start()
    assert (first.held, second.held) == (True, False)
    await first.stop()
    assert not first.held
    await until(lambda: second.held)
    assert gained == ["one", "two"]
    await second.stop()


async def test_many_that_start_at_once_make_one_holder(client: KubeClient, namespace: str) -> None:
    replicas = [Leadership(client, namespace, "expiry", f"replica-{number}") for number in range(8)]
    await asyncio.gather(*(replica.start() for replica in replicas))
    assert sum(replica.held for replica in replicas) == 1
    await asyncio.gather(*(replica.stop() for replica in replicas))


async def test_a_dead_holder_is_replaced_and_never_acts_beside_its_heir(client: KubeClient, namespace: str) -> None:
    first = Leadership(client, namespace, "expiry", "one")
    second = Leadership(client, namespace, "expiry", "two")
    await first.start()
    assert first._task is not None
    first._task.cancel()  # kill -9, as the others see it
    await second.start()
    both = False
    for _ in range(1200):  # bounds a hang
        both = both or (first.held and second.held)
        if second.held:
            break
        await asyncio.sleep(0.1)
    assert second.held
    assert not both
    assert LEASE_SECONDS < 40
    await second.stop()
