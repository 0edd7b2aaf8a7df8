"""Messages through the WebSocket proxy: what is sent on one side arrives on the other as it was."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from tests.kernel.proxy.harness import PATIENCE
from tests.kernel.proxy.sockets import PATH, masked_frame, raw_client, service, socket_front
from tests.support.waiting import until
from websockets.asyncio.server import ServerConnection
from yarl import URL

from shoal.config.settings import ProxySettings

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 * MIB, 9 * MIB])
@pytest.mark.parametrize("compression", ["deflate", None])
async def test_messages_of_any_size_come_back(size: int, compression: str | None) -> None:
    async with service() as backend, socket_front(backend.address) as front:
        async with front.connect(compression=compression) as client:
            for message in ("é" * (size // 2) + "x" * (size % 2), bytes(range(256)) * (size // 256 + 1)):
                await client.send(message)
                assert await client.recv() == message
            assert bool(client.protocol.extensions) is bool(compression)
        assert bool(backend.last.protocol.extensions) is bool(compression)


async def test_fragments_stay_fragments_and_messages_messages() -> None:
    seen: list[list[str]] = []

    async def collect(connection: ServerConnection) -> None:
        seen.append([fragment async for fragment in connection.recv_streaming(decode=True)])
        await connection.send(["one ", "two ", "three"])

    async with (
        service(collect, compression=None) as backend,
        socket_front(backend.address) as front,
        front.connect() as client,
    ):
        await client.send(["a", "b", "c"])
        assert [fragment async for fragment in client.recv_streaming(decode=True)] == ["one ", "two ", "three", ""]
    assert seen == [["a", "b", "c", ""]]


@pytest.mark.parametrize("compress", [0, 15])
async def test_aiohttp(compress: int) -> None:
    async with service() as backend, socket_front(backend.address) as front, aiohttp.ClientSession() as session:
        url = URL(f"http://127.0.0.1:{front.port}{PATH}?a=1&b=%2F", encoded=True)
        async with session.ws_connect(url, compress=compress, protocols=["v2", "v1"]) as client:
            await client.send_str("text ✓")
            assert await client.receive_str(timeout=PATIENCE) == "text ✓"
            await client.send_bytes(b"\0\xff" * 70000)
            assert await client.receive_bytes(timeout=PATIENCE) == b"\0\xff" * 70000
            await client.ping(b"there?")
            await client.close(code=4321, message=b"done")
            assert client.close_code == 4321
        assert await backend.closed() == (4321, "done")
        assert backend.last.request is not None
        assert backend.last.request.path == "/chat?a=1&b=%2F"


async def test_a_reader_that_is_slow_holds_the_writer_back() -> None:
    """Nothing is read from the service beyond what the buffers on the way hold; the rest waits where it is."""
    sent = 0
    piece = bytes(MIB)

    async def pour(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(64):
            await connection.send(piece)
            sent += 1

    async with (
        service(pour, compression=None) as backend,
        socket_front(backend.address) as front,
        front.connect(max_queue=1, compression=None) as client,
    ):
        await until(lambda: sent >= 1)
        before = -1
        while before != sent:  # until a second brings nothing more
            before = sent
            await asyncio.sleep(1)
        assert sent < 40
        for _ in range(64):
            assert await client.recv() == piece


async def test_a_service_that_is_slow_holds_the_client_back() -> None:
    go_on = asyncio.Event()
    got = 0

    async def sip(connection: ServerConnection) -> None:
        nonlocal got
        await go_on.wait()
        async for message in connection:
            got += len(message)

    async with service(sip, max_queue=1, compression=None) as backend, socket_front(backend.address) as front:
        async with front.connect(compression=None) as client:
            sent = 0

            async def pour() -> None:
                nonlocal sent
                for _ in range(64):
                    await client.send(bytes(MIB))
                    sent += 1

            pouring = asyncio.create_task(pour())
            before = -1
            while before != sent or not sent:
                before = sent
                await asyncio.sleep(1)
            assert sent < 40
            go_on.set()
            await asyncio.wait_for(pouring, PATIENCE)
        await backend.closed()
        assert got == 64 * MIB


async def test_the_longest_message_of_a_client() -> None:
    settings = ProxySettings(websocket_max_message_bytes=1000)
    async with service() as backend, socket_front(backend.address, settings=settings) as front:
        async with front.connect(compression=None) as client:
            for message in (b"x" * 1000, [b"x" * 500, b"y" * 500]):
                await client.send(message)
                assert len(await client.recv()) == 1000
            await client.send([b"x" * 500, b"y" * 501])
            await asyncio.wait_for(client.wait_closed(), PATIENCE)
            assert client.close_code == 1009
        assert await backend.closed() == (1001, "")
        assert front.access.entries[-1].close_code == 1009


async def test_a_long_message_is_refused_while_it_is_being_sent() -> None:
    """The client that still writes gets to read why."""
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(0x82, bytes(16 * MIB)))
        assert await client.frame() == (0x82, bytes(16 * MIB))
        await client.send(masked_frame(0x82, bytes(40 * MIB)))
        first, payload = await client.frame()
        assert (first, payload[:2]) == (0x88, b"\x03\xf1")
        assert payload[2:] == b"a message of more than 16777216 bytes"
        assert await client.frame() == (-1, b"")
        assert await backend.closed() == (1001, "")


async def test_messages_of_the_service_have_no_limit() -> None:
    async def long(connection: ServerConnection) -> None:
        await connection.send(bytes(40 * MIB))

    async with (
        service(long, compression=None) as backend,
        socket_front(backend.address) as front,
        front.connect() as client,
    ):
        assert len(await client.recv()) == 40 * MIB
