"""What goes wrong, who is told, and what they are not told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket

import httpx
import pytest
from tests.kernel.proxy.harness import PATIENCE, Peer, Upstream, answering, front, ok
from tests.support.waiting import until

from shoal.config.settings import ProxySettings
from shoal.proxy.client import Client, Graces

PROXY = "/sandboxes/s/proxy/80/"


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return address_of(probe)


async def test_nobody_listens() -> None:
    address = closed_port()
    async with front(s=address) as server:
        status, _, body = await server.get(PROXY)
        assert server.proxy.pool.open == 0
    assert (status, json.loads(body)["code"]) == (502, "BACKEND_CONNECTION_FAILED")
    assert b"127.0.0.1" not in body
    assert address.rpartition(":")[2].encode() not in body
    assert json.loads(body)["message"] == "The sandbox's service on port 80 could not be connected to."


async def test_an_unknown_sandbox_is_the_directorys_to_refuse() -> None:
    async with front() as server:
        status, _, body = await server.get(PROXY)
    assert (status, json.loads(body)["code"]) == (404, "TEST::SANDBOX_NOT_FOUND")


async def test_no_connection_in_time() -> None:
    """A listener whose queue is full lets nobody in."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        settings = ProxySettings(connect_timeout_seconds=0.2)
        async with front(s=address_of(listener), settings=settings) as server:
            status, _, body = await server.get(PROXY)
            assert server.proxy.pool.open == 0
        for filler in fillers:
            filler.close()
    assert (status, json.loads(body)["code"]) == (502, "BACKEND_CONNECTION_FAILED")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n" * 300 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_an_answer_that_is_none(answer: bytes) -> None:
    async with answering(answer, close=True).running() as upstream, front(s=upstream.address) as server:
        status, _, body = await server.get(PROXY)
        await until(lambda: server.proxy.pool.open == 0)
    assert (status, json.loads(body)["code"]) == (502, "BACKEND_RESPONSE_FAILED")
    assert b"127.0.0.1" not in body
    assert b"service on port 80 " in body
    assert upstream.connections == 1


async def test_an_endless_row_of_interim_answers_is_cut_early() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.head()
        while True:
            await peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            sent += 1

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        status, _, body = await server.get(PROXY)
        await until(lambda: server.proxy.pool.open == 0)
    assert (status, json.loads(body)["code"]) == (502, "BACKEND_RESPONSE_FAILED")


async def test_a_row_of_interim_answers_that_ends_is_borne() -> None:
    many = b"HTTP/1.1 102 Processing\r\n\r\n" * 200
    async with answering(many + ok()).running() as upstream, front(s=upstream.address) as server:
        assert (await server.get(PROXY))[0] == 200


async def hang(peer: Peer) -> None:
    await peer.head()
    await peer.reader.read()


@pytest.mark.parametrize("body", [b"", b"abc", b"x" * 100_000])
async def test_no_answer_in_time(body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        while await peer.reader.read(65536):
            pass

    settings = ProxySettings(response_timeout_seconds=0.2)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        status, _, answer = await server.get(PROXY, f"Content-Length: {len(body)}", method="POST", body=body)
        await until(lambda: server.proxy.pool.open == 0)
    assert (status, json.loads(answer)["code"]) == (504, "BACKEND_TIMEOUT")


async def test_an_upstream_that_takes_no_more_of_the_body() -> None:
    stuck = asyncio.Event()

    async def script(peer: Peer) -> None:
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined] # typed as its write half
        await stuck.wait()

    settings = ProxySettings(response_timeout_seconds=0.2)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        # More than the buffers on the way hold, and less than what is thrown away behind an early answer.
        response = await server.http.post(PROXY, content=bytes(24 * 2**20))
        stuck.set()
    assert (response.status_code, response.json()["code"]) == (504, "BACKEND_TIMEOUT")


CUT_SHORT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "mid chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "not a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nxyz\r\n",
}


@pytest.mark.parametrize("kind", CUT_SHORT)
async def test_an_answer_cut_short_never_looks_whole(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async with answering(CUT_SHORT[kind], close=True).running() as upstream, front(s=upstream.address) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await server.http.get(PROXY)
        await until(lambda: server.proxy.pool.open == 0)
        assert [str(cut) for cut in server.edge.cuts] == ["BACKEND_RESPONSE_FAILED"]
    assert [record for record in caplog.records if record.exc_info] == []


async def test_an_answer_until_close_that_ends_in_a_reset_never_looks_whole() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await released.wait()
        linger = peer.writer.get_extra_info("socket")
        linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.writer.transport.abort()

    released = asyncio.Event()
    async with (
        Upstream(script).running() as upstream,
        front(s=upstream.address) as server,
        asyncio.timeout(PATIENCE),
        server.http.stream("GET", PROXY) as response,
    ):
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"abc"
        released.set()
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)


async def test_too_long_a_silence_within_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CUT_SHORT["length"])
        await peer.reader.read()

    settings = ProxySettings(read_timeout_seconds=0.2)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await server.http.get(PROXY)
        assert [str(cut) for cut in server.edge.cuts] == ["BACKEND_TIMEOUT"]
    assert [record for record in caplog.records if record.exc_info] == []


async def test_a_service_that_owes_bytes_of_its_answer_is_not_waited_for_without_end() -> None:
    """An event stream may be silent for as long as it likes, which is tested with the streams."""

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(CUT_SHORT["length"])
        await peer.reader.read()

    settings = ProxySettings(response_timeout_seconds=0.2)
    async with Upstream(script).running() as upstream, front(s=upstream.address, settings=settings) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            await server.http.get(PROXY)
        assert [str(cut) for cut in server.edge.cuts] == ["BACKEND_TIMEOUT"]


@pytest.mark.parametrize("when", ["before the answer", "within the answer", "within the request", "while resolving"])
async def test_a_client_that_leaves_takes_the_upstream_with_it(when: str, caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        if when == "within the answer":
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        asked.set()
        try:
            while await peer.reader.read(65536):
                pass
        finally:
            ended.set()

    length = 1_000_000 if when == "within the request" else 0
    caplog.set_level(logging.INFO)
    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        if when == "while resolving":
            server.sandboxes.addresses.clear()
            server.sandboxes.pending["s"] = waiting = asyncio.get_running_loop().create_future()
        reader, writer = await server.open()
        writer.write(f"POST {PROXY} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        if when == "while resolving":
            await until(lambda: server.edge.under_way)
        else:
            await asked.wait()
        if when == "within the answer":
            await reader.readuntil(b"abc\r\n")
        writer.close()
        await until(lambda: server.edge.finished)
        if when == "while resolving":
            assert waiting.cancelled()
        else:
            await ended.wait()
        await until(lambda: server.proxy.pool.open == 0)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_cancellation_from_elsewhere_is_not_swallowed() -> None:
    async with Upstream(hang).running() as upstream, front(s=upstream.address) as server:
        request = asyncio.create_task(server.get(PROXY))
        await until(lambda: upstream.connections)
        for task in server.server.server_state.tasks:
            task.cancel()
        assert (await request)[0] == 503  # the server's word for an application that was cancelled
        await until(lambda: server.proxy.pool.open == 0)


async def test_a_cancellation_from_elsewhere_outweighs_a_client_that_leaves() -> None:
    async def leave() -> dict[str, str]:
        exchange.cancel()
        return {"type": "http.disconnect"}

    async def run() -> None:
        with Client(leave, Graces()) as client:
            client.watch()
            await asyncio.get_running_loop().create_future()

    exchange = asyncio.create_task(run())
    with pytest.raises(asyncio.CancelledError):
        await exchange


async def test_the_servers_own_connection_goes_on_after_a_failure() -> None:
    bad, good = answering(b"nonsense\r\n\r\n"), answering(ok())
    async with bad.running(), good.running(), front(s=bad.address, t=good.address) as server:
        assert (await server.http.get(PROXY)).status_code == 502
        assert (await server.http.get("/sandboxes/t/proxy/80")).status_code == 200
        assert len(server.server.server_state.connections) == 1
