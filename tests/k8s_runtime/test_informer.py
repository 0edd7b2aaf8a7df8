"""Informers against a real API server: true at once, true after cuts, outages and versions that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.k8s_runtime.relay import Relay, of_kubeconfig
from tests.support.waiting import until

from shoal_k8s.api import ApiUnreachable, KubeApiError, KubeClient, Resource
from shoal_k8s.api.client import MERGE_PATCH
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.objects import KubeStruct, Meta
from shoal_k8s.informer import Changed, DeletedObject, Informer

pytestmark = pytest.mark.needs("k8s")

CONFIG_MAPS = Resource("", "v1", "configmaps")


class ConfigMap(KubeStruct):
    metadata: Meta
    data: dict[str, str] = {}


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay(of_kubeconfig()) as relay:
        yield relay


def through(relay: Relay, tmp_path: Path) -> ApiConnection:
    """A connection that goes over the relay."""
    return ApiConnection(str(relay.kubeconfig(tmp_path)))


async def add(client: KubeClient, namespace: str, name: str, **labels: str) -> ConfigMap:
    body = {"metadata": {"name": name, "labels": {"shoal-test": "yes", **labels}}, "data": {"n": "0"}}
    return await client.create(CONFIG_MAPS, namespace, body, ConfigMap)


def informer(connection: ApiConnection, namespace: str, **options: Any) -> Informer[ConfigMap]:
    query = {"labelSelector": "shoal-test=yes"}
    index = lambda thing: [thing.metadata.labels.get("group", "")]  # noqa: E731 - one expression
    return Informer(connection, CONFIG_MAPS, namespace, ConfigMap, query=query, index=index, **options)


async def test_lists_then_follows(client: KubeClient, namespace: str) -> None:
    await add(client, namespace, "first", group="a")
    seen: list[Changed[ConfigMap] | DeletedObject[ConfigMap]] = []
    maps = informer(client.connection, namespace)
    maps.subscribe(seen.append)
    await maps.start()
    try:
        assert [thing.metadata.name for thing in maps] == ["first"]
        await add(client, namespace, "second", group="a")
        await until(lambda: len(maps) == 2)
        assert {thing.metadata.name for thing in maps.by("a")} == {"first", "second"}
        patch = {"metadata": {"labels": {"group": "b"}}, "data": {"n": "1"}}
        await client.patch(CONFIG_MAPS, namespace, "first", patch, ConfigMap, content_type=MERGE_PATCH)
        await until(lambda: bool(maps.by("b")))
        assert maps.by("b")[0].data == {"n": "1"}
        assert [thing.metadata.name for thing in maps.by("a")] == ["second"]
        await client.delete(CONFIG_MAPS, namespace, "second")
        await until(lambda: not maps.by("a"))
        assert isinstance(seen[-1], DeletedObject)
        assert maps.get(namespace, "second") is None
    finally:
        await maps.stop()


async def test_pages(client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal_k8s.informer.reflector.PAGE", 3)
    for number in range(8):
        await add(client, namespace, f"map-{number}")
    maps = informer(client.connection, namespace)
    await maps.start()
    assert len(maps) == 8
    await maps.stop()


async def test_a_cut_watch_is_taken_up_where_it_was(
    client: KubeClient, namespace: str, relay: Relay, tmp_path: Any
) -> None:
    maps = informer(through(relay, tmp_path), namespace)
    await maps.start()
    try:
        await until(lambda: any("watch=1" in line for line in relay.requests))
        relay.refusing = True
        relay.cut()
        await until(lambda: maps.error is not None)
        assert isinstance(maps.error, ApiUnreachable)
        await add(client, namespace, "meanwhile")
        relay.refusing = False
        await until(lambda: len(maps) == 1)
        assert maps.error is None
        assert sum("limit=" in line for line in relay.requests) == 1, "one list was enough"
    finally:
        await maps.stop()


async def test_a_watch_that_is_open_again_is_heard_before_anything_changes(
    namespace: str, relay: Relay, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = informer(through(relay, tmp_path), namespace)
    await maps.start()
    monkeypatch.setattr(maps, "_event", lambda event: None)  # not even a bookmark
    try:
        await until(lambda: any("watch=1" in line for line in relay.requests))
        relay.refusing = True
        relay.cut()
        await until(lambda: maps.error is not None)
        relay.refusing = False
        await until(lambda: maps.error is None)
    finally:
        await maps.stop()


async def test_a_version_that_is_gone_means_a_new_list(
    client: KubeClient, namespace: str, relay: Relay, tmp_path: Any
) -> None:
    maps = informer(through(relay, tmp_path), namespace)
    await maps.start()
    try:
        await add(client, namespace, "kept")
        await until(lambda: len(maps) == 1)
        maps._reflector._version = "1"  # as old as a version can be: the API server compacted it long ago
        relay.cut()
        await client.delete(CONFIG_MAPS, namespace, "kept")
        await add(client, namespace, "later")
        await until(lambda: [thing.metadata.name for thing in maps] == ["later"])
    finally:
        await maps.stop()


async def test_a_resync_repairs_what_the_stream_lost(client: KubeClient, namespace: str) -> None:
    await add(client, namespace, "there")
    maps = informer(client.connection, namespace, resync=1.0, watch_timeout=1.0)
    await maps.start()
    try:
        maps._objects.clear()
        maps._indexed.clear()
        await until(lambda: len(maps) == 1)
    finally:
        await maps.stop()


async def test_a_resync_comes_from_the_watch_cache(
    client: KubeClient, namespace: str, relay: Relay, tmp_path: Any
) -> None:
    maps = informer(through(relay, tmp_path), namespace, resync=1.0, watch_timeout=1.0)
    await maps.start()
    try:
        await until(lambda: any("watch=1" in line for line in relay.requests))
        await add(client, namespace, "one")  # from now on the cache is as new as what was seen
        await until(lambda: len(maps) == 1)
        seen = len(relay.requests)
        maps._objects.clear()
        maps._indexed.clear()
        await until(lambda: len(maps) == 1)
        lists = [line for line in relay.requests[seen:] if "watch=1" not in line]
        assert lists
        assert all("resourceVersion=0" in line and "limit=" not in line for line in lists)
    finally:
        await maps.stop()


async def test_a_cache_that_is_older_than_what_was_seen_is_not_believed(
    client: KubeClient, namespace: str, relay: Relay, tmp_path: Any
) -> None:
    await add(client, namespace, "there")
    maps = informer(through(relay, tmp_path), namespace, resync=1.0, watch_timeout=1.0)
    await maps.start()
    try:
        await until(lambda: any("watch=1" in line for line in relay.requests))
        version = await asyncio.to_thread(maps._reflector._list_again, str(2**62))
        assert int(version) < 2**62
        assert "limit=" in [line for line in relay.requests if "watch=1" not in line][-1]
    finally:
        await maps.stop()


async def test_an_idle_informer_asks_at_most_once_a_minute(
    client: KubeClient, namespace: str, relay: Relay, tmp_path: Any
) -> None:
    maps = informer(through(relay, tmp_path), namespace, resync=10.0, watch_timeout=2.0)
    await maps.start()
    try:
        await until(lambda: sum("watch=1" in line for line in relay.requests) >= 4, 120)
        watches = [line for line in relay.requests if "watch=1" in line]
        assert all("allowWatchBookmarks=true" in line for line in watches)
        assert all(int(line.partition("timeoutSeconds=")[2].split()[0]) in (2, 3) for line in watches)
        assert len(relay.requests) - len(watches) <= 2
    finally:
        await maps.stop()


async def test_a_kind_that_is_not_installed_is_empty(client: KubeClient, namespace: str) -> None:
    nothing = Informer(client.connection, Resource("no.such.group", "v1", "things"), namespace, ConfigMap)
    await nothing.start()
    assert len(nothing) == 0
    await until(lambda: isinstance(nothing.error, KubeApiError))
    await nothing.stop()


async def test_our_own_write_is_there_at_once_and_never_goes_back(client: KubeClient, namespace: str) -> None:
    maps = informer(client.connection, namespace)
    await maps.start()
    try:
        old = await add(client, namespace, "mine")
        maps.put(old)
        assert maps.get(namespace, "mine") == old
        new = await client.patch(CONFIG_MAPS, namespace, "mine", {"data": {"n": "9"}}, ConfigMap)
        maps.put(new)
        maps.put(old)
        found = maps.get(namespace, "mine")
        assert found is not None
        assert found.data == {"n": "9"}
    finally:
        await maps.stop()


async def test_the_first_list_tells_why_it_fails(relay: Relay, tmp_path: Any) -> None:
    relay.refusing = True
    maps = informer(through(relay, tmp_path), "default", first_list=2.0)
    with pytest.raises(ApiUnreachable):
        await maps.start()
    await maps.stop()


async def test_errors_are_told_apart(client: KubeClient, namespace: str) -> None:
    await add(client, namespace, "twice")
    with pytest.raises(KubeApiError) as exists:
        await add(client, namespace, "twice")
    assert exists.value.exists
    with pytest.raises(KubeApiError) as missing:
        await client.get(CONFIG_MAPS, namespace, "nobody", ConfigMap)
    assert missing.value.not_found
    stale = {"metadata": {"resourceVersion": "1"}, "data": {"n": "2"}}
    with pytest.raises(KubeApiError) as conflict:
        await client.patch(CONFIG_MAPS, namespace, "twice", stale, ConfigMap)
    assert conflict.value.conflict
    assert msgspec.json.encode(conflict.value.as_shoal_error().message)
