"""Ports without an address: the runtime connects, and the proxy uses what it is given like any other connection."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.kernel.proxy.harness import PATIENCE, Sandboxes, answering, front, ok
from tests.kernel.proxy.sockets import service, socket_front
from tests.support.waiting import until

from shoal.config.settings import ProxySettings
from shoal.errors import Conflict
from shoal.models.workload import Tunnel
from shoal.proxy.pool import ConnectionPool, destination

PATH = "/sandboxes/far/proxy/8080/x"


def behind(address: str) -> Sandboxes:
    sandboxes = Sandboxes()
    sandboxes.tunnels["far"] = address
    return sandboxes


async def test_requests_go_through_a_connection_that_is_reused() -> None:
    async with answering(ok()).running() as upstream, front(sandboxes=behind(upstream.address)) as server:
        for _ in range(5):
            assert (await server.get(PATH))[0] == 200
        assert server.sandboxes.dialled == [Tunnel("far", 8080)]
        assert b"Host: 127.0.0.1:8080" in upstream.heads[0] or b"host: 127.0.0.1:8080" in upstream.heads[0]


async def test_each_port_has_connections_of_its_own() -> None:
    async with answering(ok()).running() as upstream, front(sandboxes=behind(upstream.address)) as server:
        await server.get(PATH)
        await server.get(PATH.replace("8080", "9090"))
        assert server.sandboxes.dialled == [Tunnel("far", 8080), Tunnel("far", 9090)]


async def test_a_dropped_sandbox_keeps_no_idle_connection_and_others_keep_theirs() -> None:
    async with answering(ok()).running() as upstream:
        sandboxes = behind(upstream.address)
        sandboxes.tunnels["other"] = upstream.address
        async with front(sandboxes=sandboxes) as server:
            await server.get(PATH)
            await server.get(PATH.replace("far", "other"))
            server.proxy.drop("far")
            await until(lambda: server.proxy.pool.open == 1)
            await server.get(PATH.replace("far", "other"))
            assert len(sandboxes.dialled) == 2
            await server.get(PATH)
            assert len(sandboxes.dialled) == 3
        await until(lambda: server.proxy.pool.open == 0)
        assert not server.proxy.pool._tunnels


async def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    async with front(sandboxes=behind(address)) as server:
        status, _, body = await server.get(PATH)
        assert (status, b"could not be connected to" in body, b"8080" in body) == (502, True, True)
        assert server.proxy.pool.open == 0


async def test_what_the_runtime_refuses_is_told() -> None:
    class Refusing(Sandboxes):
        async def connect(self, tunnel: Tunnel) -> socket.socket:
            raise Conflict("TEST::CLOSED", "This port is closed.")

    sandboxes = Refusing()
    sandboxes.tunnels["far"] = ""
    async with front(sandboxes=sandboxes) as server:
        status, _, body = await server.get(PATH)
        assert (status, b"TEST::CLOSED" in body) == (409, True)
        assert server.proxy.pool.open == 0


async def test_a_runtime_that_takes_too_long_is_cancelled_and_counted_no_more() -> None:
    cancelled = asyncio.Event()

    async def never(tunnel: Tunnel) -> socket.socket:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    pool = ConnectionPool(connect_limit=0.05, idle_limit=5, per_address=1, connect=never)
    for _ in range(2):  # the second would find no turn if the first were still counted
        with pytest.raises(Exception, match="could not be connected to"):
            await pool.connect(destination(Tunnel("far", 1)))
    assert cancelled.is_set()
    assert (pool.open, pool._lanes, pool._tunnels) == (0, {}, {})


async def test_a_websocket() -> None:
    async with service() as backend, socket_front("", settings=ProxySettings()) as server:
        server.sandboxes.tunnels["box"] = backend.address
        async with server.connect() as client:
            await client.send("through")
            assert await asyncio.wait_for(client.recv(), PATIENCE) == "through"
        assert len(server.sandboxes.dialled) == 1
