"""Upstream connections: when one is reused, when it is not, and how many there may be."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time

import pytest
from tests.kernel.proxy.harness import PATIENCE, Peer, Upstream, answering, front, header, ok
from tests.support.waiting import until

from shoal.config.settings import ProxySettings
from shoal.errors import BadGateway, InternalError
from shoal.proxy.connection import UpstreamConnection
from shoal.proxy.lease import Lease
from shoal.proxy.pool import ConnectionPool, Destination, destination

PROXY = "/sandboxes/s/proxy/80/"
CHUNKS = b"2\r\nab\r\n0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS


def pool_of(*, per_address: int = 8, total: int = 64, wait: float = PATIENCE) -> ConnectionPool:
    return ConnectionPool(connect_limit=wait, idle_limit=PATIENCE, per_address=per_address, total=total)


async def exchange(lease: Lease) -> None:
    lease.begin(headless=False, response_limit=PATIENCE)
    lease.write(b"GET / HTTP/1.1\r\n\r\n")
    lease.end_request()
    await lease.head()
    while not lease.complete:
        await lease.read(0)


async def held(pool: ConnectionPool, place: Destination) -> Lease:
    """A connection that has served one exchange and is not yet put back."""
    lease = await pool.connect(place)
    await exchange(lease)
    return lease


def behind(lease: Lease | None) -> UpstreamConnection:
    """The connection that a lease is of."""
    assert lease is not None
    assert lease._connection is not None
    return lease._connection


def test_addresses() -> None:
    assert destination("10.0.0.1:80") == Destination("10.0.0.1", 80, b"10.0.0.1:80", b"")
    assert destination("[::1]:80/a/b/") == Destination("::1", 80, b"[::1]:80", b"/a/b")
    assert destination("name.test:80/") == Destination("name.test", 80, b"name.test:80", b"")


def _service_with_two_writes(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
            connection.sendall(b"ok")


async def test_head_and_body_written_apart_do_not_wait_for_each_other() -> None:
    """The kernel's delayed acknowledgement would make each answer on a used connection 40 ms late."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        service = asyncio.create_task(asyncio.to_thread(_service_with_two_writes, listener))
        async with front(s=f"127.0.0.1:{listener.getsockname()[1]}") as server:
            seconds = []
            for _ in range(100):
                began = time.monotonic()
                assert (await server.get(PROXY))[2] == b"ok"
                seconds.append(time.monotonic() - began)
            assert server.proxy.pool.open == 1
        await service
    assert min(seconds[50:]) < 0.015


async def test_one_connection_serves_many_requests() -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        for _ in range(5):
            assert (await server.get(PROXY))[0] == 200
        assert (server.proxy.pool.open, server.proxy.pool.idle) == (1, 1)
    assert upstream.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"ab", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabgarbage",
        ok(b"ab") + b"\r\n",
        ok(b"ab") + b"\n",
        CHUNKED + b"\r\n",
        CHUNKED + b'3b\r\n{"type":"ping"}',
        ok(b"ab", b"Content-Type: text/event-stream"),
        ok(b"ab", b"content-type: Text/Event-Stream; charset=utf-8"),
        STREAM,
    ],
)
async def test_a_connection_that_cannot_be_trusted_is_not_reused(answer: bytes) -> None:
    async with answering(answer).running() as upstream, front(s=upstream.address) as server:
        for _ in range(3):
            assert (await server.get(PROXY))[2] in (b"ab", CHUNKS)
    assert upstream.connections == 3


async def test_an_answer_nobody_asked_for_is_nobodys() -> None:
    async with answering(ok(b"mine")).running() as upstream, front(s=upstream.address) as server:
        assert (await server.get(PROXY))[2] == b"mine"
        await upstream.peers[0].send(ok(b"evil"))
        await until(lambda: server.proxy.pool.open == 0)
        assert (await server.get(PROXY))[2] == b"mine"
    assert upstream.connections == 2


async def test_an_idle_connection_that_the_upstream_closes_is_forgotten() -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        await server.get(PROXY)
        upstream.peers[0].writer.close()
        await until(lambda: server.proxy.pool.open == 0)
        assert (await server.get(PROXY))[0] == 200


async def test_an_idle_connection_is_dropped_in_time() -> None:
    settings = ProxySettings(idle_connection_seconds=0.1)
    async with answering(ok()).running() as upstream, front(s=upstream.address, settings=settings) as server:
        await server.get(PROXY)
        await until(lambda: server.proxy.pool.open == 0)


async def test_no_idle_time_means_no_reuse() -> None:
    settings = ProxySettings(idle_connection_seconds=0)
    async with answering(ok()).running() as upstream, front(s=upstream.address, settings=settings) as server:
        for _ in range(2):
            assert (await server.get(PROXY))[0] == 200
    assert upstream.connections == 2


def closing_on_the_second_request(seen: list[bytes], after: bytes = b"") -> Upstream:
    """Answers the first request of its first connection, and ends the second unanswered; other connections are fine."""

    async def script(peer: Peer) -> None:
        first = len(upstream.peers) == 1
        while head := await peer.head():
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            seen.append(head.split(b" ")[0])
            if first and len(seen) == 2:
                await peer.send(after)
                return
            await peer.send(ok())

    upstream = Upstream(script)
    return upstream


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("PUT", b"abc"), ("DELETE", b"")])
async def test_a_stale_connection_is_replaced_where_asking_twice_is_harmless(method: str, body: bytes) -> None:
    seen: list[bytes] = []
    async with closing_on_the_second_request(seen).running() as upstream, front(s=upstream.address) as server:
        await server.get(PROXY)
        status, _, _ = await server.get(PROXY, f"Content-Length: {len(body)}", method=method, body=body)
    assert seen == [b"GET", method.encode(), method.encode()]
    assert (status, upstream.connections) == (200, 2)


@pytest.mark.parametrize(
    ("method", "lines", "body"),
    [
        ("POST", ["Content-Length: 3"], b"abc"),
        ("POST", ["Content-Length: 0"], b""),
        ("PATCH", [], b""),
        ("PROPFIND", [], b""),
        ("PUT", ["Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n"),
        ("PUT", ["Content-Length: 70000"], bytes(70_000)),
    ],
)
async def test_what_cannot_be_repeated_goes_out_on_a_connection_of_its_own(
    method: str, lines: list[str], body: bytes
) -> None:
    """However near the upstream is to closing the one that is kept."""
    methods: list[bytes] = []

    async def script(peer: Peer) -> None:
        served = 0
        while head := await peer.head():
            methods.append(head.split(b" ")[0])
            if served:
                return  # closes without an answer what came on a used connection
            if header(head, b"transfer-encoding"):
                await peer.chunked_body()
            else:
                await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            served += 1
            await peer.send(ok())

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        await server.get(PROXY)
        for _ in range(5):
            assert (await server.get(PROXY, *lines, method=method, body=body))[0] == 200
    assert methods == [b"GET"] + [method.encode()] * 5
    assert upstream.connections == 6


async def test_a_request_that_is_lost_on_its_own_connection_is_not_sent_again() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readexactly(len(await peer.head()) and 3)

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        status, _, answer = await server.get(PROXY, "Content-Length: 3", method="POST", body=b"abc")
    assert (status, json.loads(answer)["code"], upstream.connections) == (502, "BACKEND_RESPONSE_FAILED", 1)


async def test_the_upstream_closes_what_is_not_kept() -> None:
    """And so keeps the pair of ports: this side would run out of them."""
    told: list[bytes | None] = []
    first_to_close: list[bool] = []

    async def script(peer: Peer) -> None:
        told.append(header(await peer.head(), b"connection"))
        await peer.send(ok(b"ok", *[b"Connection: close"] * (told[-1] == b"close")))
        if told[-1] == b"close":
            await asyncio.sleep(0.05)  # the proxy has its whole answer
            first_to_close.append(not peer.reader.at_eof())
        else:
            await peer.reader.read()

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        for _ in range(5):
            assert (await server.get(PROXY, "Content-Length: 0", method="POST"))[0] == 200
        await until(lambda: server.proxy.pool.open == 0)
    assert (told, first_to_close) == ([b"close"] * 5, [True] * 5)


async def test_a_service_that_serves_its_connections_one_after_another_is_never_waited_for() -> None:
    """It reads from the kept connection until that is closed, and from a new one only then."""
    turn = asyncio.Lock()

    async def script(peer: Peer) -> None:
        async with turn:
            while head := await peer.head():
                await peer.reader.readexactly(int(header(head, b"content-length") or 0))
                close = header(head, b"connection") == b"close"
                await peer.send(ok(b"ok", *[b"Connection: close"] * close))
                if close:
                    return

    settings = ProxySettings(idle_connection_seconds=600)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        for method in ["GET", "POST", "POST", "GET", "GET", "POST", "PATCH", "GET"]:
            assert (await server.get(PROXY, "Content-Length: 2", method=method, body=b"{}"))[0] == 200


async def test_an_upstream_that_began_to_answer_is_not_asked_again() -> None:
    seen: list[bytes] = []
    upstream = closing_on_the_second_request(seen, b"HTTP/1.1 2")
    async with upstream.running(), front(s=upstream.address) as server:
        await server.get(PROXY)
        assert (await server.get(PROXY))[0] == 502
    assert (seen, upstream.connections) == ([b"GET", b"GET"], 1)


async def test_a_fresh_connection_is_not_replaced() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        assert (await server.get(PROXY))[0] == 502
    assert upstream.connections == 1


async def test_the_socket_itself_knows_of_a_close_that_the_loop_has_not_heard_of() -> None:
    pool = pool_of()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = destination("{}:{}".format(*listener.getsockname()))
        lease = await pool.connect(place)
        accepted, _ = listener.accept()
        accepted.sendall(ok(b""))
        await exchange(lease)
        pool.release(place, lease)
        accepted.close()  # and no turn of the loop from here to the reuse
        assert pool.reuse(place) is None
    await until(lambda: pool.open == 0)


@pytest.mark.parametrize("stray", [b"\n", b'3b\r\n{"type":"ping"}\n\n\r\n', ok(b"evil")])
async def test_what_came_on_an_idle_connection_is_noticed_before_the_loop_hears_of_it(stray: bytes) -> None:
    pool = pool_of()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = destination("{}:{}".format(*listener.getsockname()))
        lease = await pool.connect(place)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(ok(b""))
            await exchange(lease)
            descriptor = behind(lease)._transport.get_extra_info("socket").fileno()
            pool.release(place, lease)
            accepted.sendall(stray)  # and no turn of the loop from here to the reuse
            assert select.select([descriptor], [], [], PATIENCE)[0]
            assert pool.reuse(place) is None
    await until(lambda: pool.open == 0)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_bytes_left_over_never_stand_for_an_answer(method: str) -> None:
    """They come with the next answer, so that nobody could know of them before."""
    stray = b'3b\r\n{"type":"ping","text":"pong","timestamp":1}\n\n\r\n'
    async with answering(ok(), stray + ok()).running() as upstream, front(s=upstream.address) as server:
        for _ in range(4):
            status, _, body = await server.get(PROXY, "Content-Length: 2", method=method, body=b"ab")
            assert (status, body) == (200, b"ok")
    assert upstream.connections == 4


async def test_a_stream_and_its_straggler_do_not_reach_a_post() -> None:
    """As a daemon does that writes its ping once more behind the end of an event stream."""
    pings = 0

    async def script(peer: Peer) -> None:
        nonlocal pings
        while head := await peer.head():
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await peer.send(STREAM)
            await asyncio.sleep(0)
            await peer.send(b'3b\r\n{"type":"ping"}\n\n\r\n')
            pings += 1

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        for method in ["POST", "GET"] * 5:
            status, _, body = await server.get(PROXY, "Content-Length: 2", method=method, body=b"{}")
            assert (status, body) == (200, CHUNKS)
        await until(lambda: server.proxy.pool.open == 0)
    assert (upstream.connections, pings) == (10, 10)


async def test_the_newest_idle_connection_is_taken_first() -> None:
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(), destination(upstream.address)
        leases = [await held(pool, place), await held(pool, place)]
        first, second = (behind(lease) for lease in leases)
        for lease in leases:
            pool.release(place, lease)
        again = [pool.reuse(place), pool.reuse(place)]
        assert [behind(lease) for lease in again] == [second, first]
        assert pool.reuse(place) is None
        for taken in again:
            assert taken is not None
            pool.release(place, taken)
        await pool.aclose()
        await until(lambda: pool.open == 0)


async def test_a_full_lane_hands_over_what_is_put_back() -> None:
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(per_address=1), destination(upstream.address)
        lease = await held(pool, place)
        connection = behind(lease)
        waiting = [asyncio.create_task(pool.connect(place)) for _ in range(3)]
        await asyncio.sleep(0)
        for waiter in waiting:
            assert not waiter.done()
            pool.release(place, lease)
            lease = await waiter
            assert behind(lease) is connection
            await exchange(lease)
        lease.abort()
        await until(lambda: pool.open == 0)


@pytest.mark.parametrize("change", ["cancelled", "gone"])
async def test_a_full_lane_moves_on(change: str) -> None:
    """A waiter that gives up after its turn came, and a connection that dies, both let the next one in."""
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(per_address=1), destination(upstream.address)
        lease = await held(pool, place)
        first, second = (asyncio.create_task(pool.connect(place)) for _ in range(2))
        await asyncio.sleep(0)
        if change == "cancelled":
            pool.release(place, lease)
            first.cancel()
        else:
            lease.abort()
            (await first).abort()
        (await asyncio.wait_for(second, PATIENCE)).abort()
        await until(lambda: pool.open == 0)


async def test_a_fresh_connection_displaces_an_idle_one() -> None:
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(per_address=1), destination(upstream.address)
        lease = await held(pool, place)
        connection = behind(lease)
        pool.release(place, lease)
        fresh = await asyncio.wait_for(pool.connect(place, fresh=True), PATIENCE)
        assert behind(fresh) is not connection
        assert pool.open == 1
        fresh.abort()
        await until(lambda: pool.open == 0)


async def test_a_full_pool_drops_what_has_been_idle_longest() -> None:
    async with answering(ok()).running() as one, answering(ok()).running() as other:
        pool, place, elsewhere = pool_of(total=2), destination(one.address), destination(other.address)
        leases = [await held(pool, place), await held(pool, place)]
        old, young = (behind(lease) for lease in leases)
        for lease in leases:
            pool.release(place, lease)
        third = await asyncio.wait_for(pool.connect(elsewhere), PATIENCE)
        assert (old.closed, young.closed, pool.open, pool.idle) == (True, False, 2, 1)
        third.abort()
        await pool.aclose()
        await until(lambda: pool.open == 0)


async def test_a_full_pool_lets_the_next_in_when_one_goes() -> None:
    async with answering(ok()).running() as one, answering(ok()).running() as other:
        pool, place, elsewhere = pool_of(total=1), destination(one.address), destination(other.address)
        lease = await held(pool, place)
        connection = behind(lease)
        waiting = asyncio.create_task(pool.connect(elsewhere))
        await asyncio.sleep(0)
        pool.release(place, lease)
        (await asyncio.wait_for(waiting, PATIENCE)).abort()
        assert connection.closed
        await until(lambda: pool.open == 0)


@pytest.mark.parametrize("limits", [{"per_address": 1}, {"total": 1}])
async def test_a_turn_that_does_not_come(limits: dict[str, int]) -> None:
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(wait=0.1, **limits), destination(upstream.address)
        lease = await held(pool, place)
        connection = behind(lease)
        with pytest.raises(InternalError) as caught:
            await pool.connect(place)
        assert caught.value.code == "GENERAL::UNKNOWN_ERROR"
        pool.release(place, lease)
        again = pool.reuse(place)
        assert behind(again) is connection
        connection.abort()
        await until(lambda: pool.open == 0)


async def test_a_failed_dial_leaves_room() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = destination("{}:{}".format(*probe.getsockname()))
        pool = pool_of(per_address=1)
        for _ in range(3):
            with pytest.raises(BadGateway):
                await pool.connect(place)
    assert pool.open == 0


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_dial_leaves_room(steps: int) -> None:
    async with answering(ok()).running() as upstream:
        pool, place = pool_of(per_address=1), destination(upstream.address)
        dialling = asyncio.create_task(pool.connect(place))
        for _ in range(steps):
            await asyncio.sleep(0)
        dialling.cancel()
        outcome = (await asyncio.gather(dialling, return_exceptions=True))[0]
        if isinstance(outcome, Lease):
            outcome.abort()
        await until(lambda: pool.open == 0)
        (await pool.connect(place)).abort()
        await until(lambda: pool.open == 0)


async def test_requests_beyond_the_limit_wait_their_turn() -> None:
    busy: list[int] = []
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while await peer.head():
            busy.append(1)
            most = max(most, len(busy))
            await asyncio.sleep(0)
            busy.pop()
            await peer.send(ok())

    settings = ProxySettings(max_connections_per_sandbox=3)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        answers = await asyncio.gather(*(server.get(PROXY) for _ in range(50)))
        assert {status for status, _, _ in answers} == {200}
        assert server.proxy.pool.open <= 3
    assert upstream.connections <= 3 >= most


async def test_closing_the_proxy_closes_what_is_idle() -> None:
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        while await peer.head():
            await peer.send(ok())
        ended.set()

    async with Upstream(script).running() as upstream:
        async with front(s=upstream.address) as server:
            await server.get(PROXY)
        await asyncio.wait_for(ended.wait(), PATIENCE)
