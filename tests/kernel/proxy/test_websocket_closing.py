"""How a WebSocket through the proxy ends, and what each side hears of it (docs/wire/api.md section 16)."""

from __future__ import annotations

import asyncio

import pytest
from tests.kernel.proxy.harness import PATIENCE
from tests.kernel.proxy.sockets import ending, masked_frame, raw_client, raw_service, service, socket_front
from tests.support.waiting import until
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from shoal.proxy.websocket import relay

SENDABLE = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
NOT_SENDABLE = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
CLOSE = 0x88


def said(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


@pytest.mark.parametrize("code", SENDABLE)
async def test_codes_and_reasons_go_both_ways(code: int) -> None:
    async def leave(connection: ServerConnection) -> None:
        if await connection.recv() == "you":
            await connection.close(code, "ça suffit")
        else:
            await connection.wait_closed()

    async with service(leave) as backend, socket_front(backend.address) as front:
        async with front.connect() as client:
            await client.send("you")
            assert await ending(client) == (code, "ça suffit")
        async with front.connect() as client:
            await client.send("me")
            await client.close(code, "ça suffit")
            assert await ending(client) == (code, "ça suffit")
        assert await backend.closed() == (code, "ça suffit")
        await until(lambda: len(front.access.entries) == 2)
        for entry in front.access.entries:
            assert (entry.status, entry.close_code, entry.complete, entry.method) == (101, code, True, "WEBSOCKET")


@pytest.mark.parametrize("code", NOT_SENDABLE)
async def test_codes_that_must_not_be_sent_are_the_senders_fault(code: int) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(CLOSE, said(code)))
        first, payload = await client.frame()
        assert (first, payload[:2]) == (CLOSE, said(1002))
        assert await backend.closed() == (1001, "")
    upstream, heard = raw_service(bytes([CLOSE, 2]) + said(code))
    async with upstream.running(), socket_front(upstream.address) as front:
        assert await front.refused() == (1011, relay.BROKEN)
        await until(lambda: heard)
        assert heard[0][1][:2] == said(1002)


@pytest.mark.parametrize(
    ("payload", "code"), [(b"\x03", 1002), (said(1000, b"\xff"), 1007), (said(1000, b"\xc3"), 1007)]
)
async def test_a_close_that_cannot_be_read(payload: bytes, code: int) -> None:
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(CLOSE, payload))
        first, answer = await client.frame()
        assert (first, answer[:2]) == (CLOSE, said(code))


async def test_a_close_without_a_code() -> None:
    """The service's stays one; the client's reaches the service as 1000."""
    async with service() as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        await client.send(masked_frame(CLOSE, b""))
        assert await client.frame() == (CLOSE, said(1000))
        assert await client.frame() == (-1, b"")
        assert await backend.closed() == (1000, "")
    upstream, heard = raw_service(bytes([CLOSE, 0]))
    async with upstream.running(), socket_front(upstream.address) as front, raw_client(front.port) as client:
        assert await client.frame() == (CLOSE, b"")
        await client.send(masked_frame(CLOSE, b""))
        await until(lambda: heard)
        assert heard == [(CLOSE, said(1000))]
        await until(lambda: front.access.entries)
        assert front.access.entries[0].complete


async def test_a_client_that_is_lost() -> None:
    async with service() as backend, socket_front(backend.address) as front:
        async with raw_client(front.port) as client:
            await client.send(masked_frame(0x81, b"hi"))
            assert await client.frame() == (0x81, b"hi")
        assert await backend.closed() == (1001, "")
        await until(lambda: front.access.entries)
        assert (front.access.entries[0].close_code, front.access.entries[0].complete) == (1006, False)


async def test_a_client_that_is_lost_while_it_held_the_service_back() -> None:
    stuck = asyncio.Event()

    async def pour(connection: ServerConnection) -> None:
        for _ in range(64):
            sending = asyncio.ensure_future(connection.send(bytes(1024 * 1024)))
            await asyncio.wait([sending], timeout=1)
            if not sending.done():
                stuck.set()
            await sending
        stuck.set()

    async with service(pour, compression=None) as backend, socket_front(backend.address) as front:
        async with raw_client(front.port) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed for writing alone
            await asyncio.wait_for(stuck.wait(), PATIENCE)
            client.writer.transport.abort()
        assert (await backend.closed())[0] in (None, 1001)  # no close can be said within a frame
        await until(lambda: front.access.entries)


async def test_a_client_that_is_lost_within_a_message() -> None:
    """The rest of the frame will not come, so nothing can be said any more: the service sees the connection end."""
    async with service() as backend, socket_front(backend.address) as front:
        async with raw_client(front.port) as client:
            await client.send(masked_frame(0x82, bytes(1000))[:500])
            await until(lambda: backend.clients)
        assert await backend.closed() == (None, None)


async def test_a_service_that_is_lost() -> None:
    async def vanish(connection: ServerConnection) -> None:
        connection.transport.abort()

    async with service(vanish) as backend, socket_front(backend.address) as front:
        assert await front.refused() == (1011, relay.CUT)


async def test_a_service_that_is_lost_within_a_message() -> None:
    upstream, _ = raw_service(b"\x82\x7e\x10\x00" + bytes(500))
    async with upstream.running(), socket_front(upstream.address) as front, raw_client(front.port) as client:
        await until(lambda: upstream.peers)
        await asyncio.wait_for(client.reader.readexactly(504), PATIENCE)
        upstream.peers[0].writer.close()
        assert await client.frame() == (-1, b"")


async def test_what_was_sent_before_a_close_arrives_before_it() -> None:
    async def flood(connection: ServerConnection) -> None:
        for number in range(200):
            await connection.send(f"{number:04}" * 1000)

    async with service(flood) as backend, socket_front(backend.address) as front, front.connect() as client:
        got = [message async for message in client]
        assert [str(message)[:4] for message in got] == [f"{number:04}" for number in range(200)]
        assert await ending(client) == (1000, "")


async def test_a_service_that_answers_no_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CLOSE_SECONDS", 0.2)
    upstream, heard = raw_service(hangs_up=False)
    async with upstream.running(), socket_front(upstream.address) as front:
        async with front.connect() as client:
            await client.close(4001, "enough")
            assert await ending(client) == (4001, "enough")
        assert heard == [(CLOSE, said(4001, b"enough"))]
        await until(lambda: front.access.entries)


async def test_a_client_that_answers_no_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "CLOSE_SECONDS", 0.2)

    async def leave(connection: ServerConnection) -> None:
        await connection.close(4001, "enough")

    async with service(leave) as backend, socket_front(backend.address) as front, raw_client(front.port) as client:
        assert await client.frame() == (CLOSE, said(4001, b"enough"))
        assert await client.frame() == (-1, b"")
        assert await backend.closed() == (4001, "enough")


async def test_the_server_goes_down() -> None:
    async with service() as backend:
        async with socket_front(backend.address) as front:
            client = await front.connect()
            await client.send("hi")
            assert await client.recv() == "hi"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert await ending(client) == (1012, "")
        assert await backend.closed() == (1001, "")
