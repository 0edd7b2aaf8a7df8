"""Large bodies both ways: whole, and with little of them in memory at any time."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import AsyncIterator

import pytest
from tests.kernel.proxy.harness import PATIENCE, Front, Peer, Upstream, front, header, ok
from tests.support.waiting import until

from shoal.proxy.connection import READ_AHEAD, WRITE_AHEAD, UpstreamConnection

PROXY = "/sandboxes/s/proxy/80/"
PIECE = bytes(range(256)) * 1024
PIECES = 200  # 50 MiB
SLACK = 512 * 1024
"""What one read of a loop, or one of uvicorn's pieces, may add to a mark before it takes effect."""


def in_use() -> UpstreamConnection:
    """The one upstream connection that is open, on this test's own loop."""
    loop = asyncio.get_running_loop()
    connections = [thing for thing in gc.get_objects() if type(thing) is UpstreamConnection]
    (found,) = (each for each in connections if each._loop is loop and not each.closed)
    return found


def buffered_for_clients(server: Front) -> int:
    return sum(c.transport.get_write_buffer_size() for c in server.server.server_state.connections)


def pouring(chunked: bool) -> Upstream:
    async def script(peer: Peer) -> None:
        await peer.head()
        if chunked:
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        else:
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(PIECE) * PIECES))
        for _ in range(PIECES):
            await peer.send(b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
        if chunked:
            await peer.send(b"0\r\n\r\n")

    return Upstream(script)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_slow_reader_holds_the_upstream_back(chunked: bool) -> None:
    async with (
        pouring(chunked).running() as upstream,
        front(s=upstream.address) as server,
        asyncio.timeout(PATIENCE),
        server.http.stream("GET", PROXY) as response,
    ):
        connection = in_use()
        await until(lambda: connection.reading_paused)
        assert READ_AHEAD <= connection.buffered <= READ_AHEAD + SLACK
        assert buffered_for_clients(server) <= READ_AHEAD + 2 * SLACK
        digest, size = hashlib.sha256(), 0
        async for piece in response.aiter_raw():
            digest.update(piece)
            size += len(piece)
    assert size == len(PIECE) * PIECES
    assert digest.digest() == hashlib.sha256(PIECE * PIECES).digest()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_slow_upstream_holds_the_client_back(chunked: bool) -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        await go_on.wait()
        digest, size = hashlib.sha256(), 0
        if chunked:
            for chunk in await peer.chunked_body():
                digest.update(chunk)
                size += len(chunk)
        else:
            while size < int(header(head, b"content-length") or 0):
                piece = await peer.reader.read(2**20)
                digest.update(piece)
                size += len(piece)
        await peer.send(ok(b"%d %s" % (size, digest.hexdigest().encode())))

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(PIECES):
            yield PIECE

    lines = {} if chunked else {"Content-Length": str(len(PIECE) * PIECES)}
    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        request = asyncio.create_task(server.http.post(PROXY, content=pieces(), headers=lines))
        await until(lambda: upstream.connections)
        connection = in_use()
        await until(lambda: connection.writing_paused)
        assert WRITE_AHEAD < connection.unsent <= WRITE_AHEAD + SLACK
        go_on.set()
        answer = (await request).text
    assert answer == f"{len(PIECE) * PIECES} {hashlib.sha256(PIECE * PIECES).hexdigest()}"
