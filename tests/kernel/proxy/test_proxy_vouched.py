"""Which kept connections a request may use that must not be sent twice."""

from __future__ import annotations

import asyncio
import random
import select
import socket

import pytest
from tests.kernel.proxy.harness import PATIENCE, Peer, Upstream, front, header, ok
from tests.kernel.proxy.test_proxy_pool import behind, pool_of
from tests.support.waiting import until

from shoal.proxy import pool as pooling
from shoal.proxy.lease import Lease
from shoal.proxy.pool import ConnectionPool, Destination, destination

PROXY = "/sandboxes/s/proxy/80/"


async def serve(lease: Lease, accepted: socket.socket, times: int) -> None:
    """Let the connection serve so many exchanges."""
    for _ in range(times):
        lease.begin(headless=False, response_limit=PATIENCE)
        lease.write(b"GET / HTTP/1.1\r\n\r\n")
        lease.end_request()
        accepted.sendall(ok(b""))
        await lease.head()


class Pair:
    """A witness, idle for longer, and the connection that it may vouch for."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.pool: ConnectionPool = pool_of()
        self.place: Destination = destination("{}:{}".format(*listener.getsockname()))
        self.accepted: list[socket.socket] = []
        self.descriptors: list[int] = []

    async def dial(self) -> Lease:
        lease = await self.pool.connect(self.place, fresh=True)
        self.accepted.append(self.listener.accept()[0])
        self.descriptors.append(behind(lease)._transport.get_extra_info("socket").fileno())
        return lease

    async def park(self, *, witness: int, served: int, younger: bool = False) -> None:
        first, second = await self.dial(), await self.dial()
        leases = [(second, 1), (first, 0)] if younger else [(first, 0), (second, 1)]
        for (lease, at), times in zip(leases, (witness, served), strict=True):
            await serve(lease, self.accepted[at], times)
            self.pool.release(self.place, lease)

    async def close(self) -> None:
        for accepted in self.accepted:
            accepted.close()
        await self.pool.aclose()
        await until(lambda: self.pool.open == 0)


@pytest.mark.parametrize(
    ("witness", "served", "younger", "wait", "vouched"),
    [
        (2, 1, False, (0.0, PATIENCE), True),
        (5, 4, False, (0.0, PATIENCE), True),
        (1, 1, False, (0.0, PATIENCE), False),
        (2, 3, False, (0.0, PATIENCE), False),
        (2, 1, True, (0.0, PATIENCE), False),
        (2, 1, False, (PATIENCE, PATIENCE), False),
        (2, 1, False, (0.0, -1.0), False),
    ],
    ids=["ahead", "far ahead", "served as much", "served less", "younger", "not idle for long", "itself idle for long"],
)
async def test_a_witness_is_ahead_in_everything(
    witness: int,
    served: int,
    younger: bool,
    wait: tuple[float, float],
    vouched: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pooling, "WITNESS_SECONDS", wait[0])
    monkeypatch.setattr(pooling, "VOUCHED_SECONDS", wait[1])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pair = Pair(listener)
        await pair.park(witness=witness, served=served, younger=younger)
        lease = pair.pool.vouched(pair.place)
        assert (lease is not None) is vouched
        if lease is not None:
            assert behind(lease).served == served
            lease.abort()
        await pair.close()


@pytest.mark.parametrize("end", ["closed", "spoke"])
@pytest.mark.parametrize("which", [0, 1])
async def test_neither_may_have_been_touched(which: int, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn of the loop passes from the upstream's deed to the question."""
    monkeypatch.setattr(pooling, "WITNESS_SECONDS", 0.0)
    monkeypatch.setattr(pooling, "VOUCHED_SECONDS", PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pair = Pair(listener)
        await pair.park(witness=2, served=1)
        if end == "closed":
            pair.accepted[which].close()
        else:
            pair.accepted[which].sendall(b"\n")
        assert select.select([pair.descriptors[which]], [], [], PATIENCE)[0]
        assert pair.pool.vouched(pair.place) is None
        await pair.close()


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("delay", [0.0, 0.002])
async def test_an_upstream_that_ends_its_connections_unannounced_loses_no_post(
    limit: int, delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers so many requests of a connection, and never reads another; no time at all makes a witness here."""
    monkeypatch.setattr(pooling, "WITNESS_SECONDS", 0.0)
    posts: list[str] = []

    async def script(peer: Peer) -> None:
        for _ in range(limit):
            head = await peer.head()
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(ok())
        await asyncio.sleep(delay)

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        chance = random.Random(limit)
        for _ in range(40):
            methods = [chance.choice(["GET", "POST"]) for _ in range(4)]
            asked = (server.get(PROXY, "Content-Length: 2", method=method, body=b"{}") for method in methods)
            for method, (status, _, body) in zip(methods, await asyncio.gather(*asked), strict=True):
                if method == "POST":
                    posts.append(f"{status} {body.decode()}")
    assert posts
    assert set(posts) == {"200 ok"}


async def test_posts_share_connections_where_others_vouch_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(ok())

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        for _ in range(30):
            await asyncio.gather(*(server.get(PROXY) for _ in range(2)))
        await until(lambda: server.proxy.pool.idle)
        monkeypatch.setattr(pooling, "WITNESS_SECONDS", 0.0)
        monkeypatch.setattr(pooling, "VOUCHED_SECONDS", PATIENCE)
        before = upstream.connections
        for _ in range(20):
            assert (await server.get(PROXY, "Content-Length: 2", method="POST", body=b"{}"))[0] == 200
        assert upstream.connections <= before + 2


EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("answer", [ok(b"done"), EVENTS], ids=["whole", "events"])
@pytest.mark.parametrize(("kept", "connections"), [(True, 1), (False, 5)])
async def test_an_upstream_that_keeps_connections_gets_all_posts_on_one(
    answer: bytes, kept: bool, connections: int
) -> None:
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            heads.append(head)
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(answer)

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        server.sandboxes.kept = kept
        for _ in range(5):
            status, _, body = await server.get(PROXY, "Content-Length: 2", method="POST", body=b"{}")
            assert status == 200
            assert b"done" in body
        assert upstream.connections == connections
    assert [header(head, b"connection") for head in heads] == [None if kept else b"close"] * 5


async def test_a_long_body_goes_out_on_a_kept_connection_too() -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(ok())

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        server.sandboxes.kept = True
        for _ in range(3):
            body = b"x" * 300_000
            assert (await server.get(PROXY, f"Content-Length: {len(body)}", method="POST", body=body))[0] == 200
        assert upstream.connections == 1


@pytest.mark.parametrize("end", ["closed while idle", "idle for long"])
async def test_a_kept_connection_that_may_be_of_no_use_is_replaced(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.head():
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(ok())
            if end == "closed while idle":
                return

    if end == "idle for long":
        monkeypatch.setattr(pooling, "RECENT_SECONDS", -1.0)
    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        server.sandboxes.kept = True
        for _ in range(3):
            assert (await server.get(PROXY, "Content-Length: 2", method="POST", body=b"{}"))[0] == 200
            if end == "closed while idle":
                await until(lambda: server.proxy.pool.open == 0)
        assert upstream.connections == 3
