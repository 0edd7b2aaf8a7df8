"""While a WebSocket is open: pings on each leg, and news of its use for renewal."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.kernel.proxy.sockets import masked_frame, raw_client, raw_service, service, socket_front
from tests.support.waiting import until

from shoal.config.settings import ProxySettings
from shoal.proxy.websocket import relay

PINGING = ProxySettings(websocket_ping_seconds=0.2)
PING, PONG, CLOSE = 0x89, 0x8A, 0x88
ACCESS = ("box", 8080, "websocket")


async def test_each_leg_is_pinged_for_itself() -> None:
    """Who answers stays, though nothing else is said; the answers go no further."""
    upstream, heard = raw_service()
    async with (
        upstream.running(),
        socket_front(upstream.address, settings=PINGING) as front,
        raw_client(front.port) as client,
    ):
        for _ in range(5):
            assert await client.frame() == (PING, b"")
            await client.send(masked_frame(PONG, b""))
            await upstream.peers[0].send(bytes([PONG, 0]))
        assert {first for first, _ in heard} == {PING}
        assert len(heard) >= 4


async def test_a_client_that_answers_no_ping() -> None:
    async with (
        service() as backend,
        socket_front(backend.address, settings=PINGING) as front,
        raw_client(front.port) as client,
    ):
        assert await client.frame() == (PING, b"")
        first, payload = await client.frame()
        assert (first, payload[2:].decode()) == (CLOSE, relay.SILENT)
        assert payload[:2] == (1011).to_bytes(2, "big")
        assert await client.frame() == (-1, b"")
        assert await backend.closed() == (1001, "")


async def test_a_service_that_answers_no_ping() -> None:
    upstream, _ = raw_service()
    async with upstream.running(), socket_front(upstream.address, settings=PINGING) as front:
        assert await front.refused() == (1011, relay.CUT)


async def test_who_sends_is_not_silent() -> None:
    """Without pongs, but with messages: alive."""
    async with (
        service() as backend,
        socket_front(backend.address, settings=PINGING) as front,
        raw_client(front.port) as client,
    ):
        pings = 0
        while pings < 4:
            await client.send(masked_frame(0x81, b"x"))
            first, _ = await client.frame()
            assert first in (0x81, PING)
            pings += first == PING
            await asyncio.sleep(0.02)


async def test_no_pings_where_none_are_wanted() -> None:
    settings = ProxySettings(websocket_ping_seconds=0)
    async with (
        service() as backend,
        socket_front(backend.address, settings=settings) as front,
        raw_client(front.port) as client,
    ):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.frame(), 0.5)


async def test_a_flood_of_pings_is_answered_in_bounded_memory() -> None:
    """Only the latest ping needs an answer (RFC 6455 section 5.5.3): who reads no pongs is not owed them all."""
    settings = ProxySettings(websocket_ping_seconds=0)  # the front's own pings are not to come between
    async with (
        service() as backend,
        socket_front(backend.address, settings=settings) as front,
        raw_client(front.port) as client,
    ):
        pings = b"".join(masked_frame(PING, b"%8d" % number) for number in range(1000))
        client.writer.transport.set_write_buffer_limits(0)
        for _ in range(300):
            await client.send(pings)
        pong = (PONG, b"%8d" % 999)
        await client.send(masked_frame(0x81, b"the end"))
        frame = await client.frame()
        answers = 0
        while frame != (0x81, b"the end"):
            answers += 1
            assert frame[0] == PONG
            last, frame = frame, await client.frame()
        assert last == pong


async def test_news_when_it_opens_and_while_messages_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WEBSOCKET_NEWS_SECONDS", 0.3)
    settings = ProxySettings(websocket_ping_seconds=0.1)
    async with service() as backend, socket_front(backend.address, settings=settings) as front:
        accesses = front.sandboxes.accesses
        async with front.connect() as client:
            assert accesses == [ACCESS]
            await asyncio.sleep(1)
            assert accesses == [ACCESS]  # pings do not count
            await client.send("used")
            assert await client.recv() == "used"
            await until(lambda: len(accesses) >= 2)
            await asyncio.sleep(1)
            told = len(accesses)
            assert told <= 3  # of the message, and of its answer if that came after
            await asyncio.sleep(0.5)
            assert len(accesses) == told
            began = time.monotonic()
            for _ in range(500):
                await client.send("used")
                await client.recv()
            await until(lambda: len(accesses) > told)
            assert len(accesses) - told <= (time.monotonic() - began) / 0.3 + 1
        assert set(accesses) == {ACCESS}
        assert front.sandboxes.ended == []


async def test_what_the_service_says_is_use_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WEBSOCKET_NEWS_SECONDS", 0.1)
    upstream, _ = raw_service()
    async with upstream.running(), socket_front(upstream.address) as front, raw_client(front.port):
        await until(lambda: upstream.peers)
        await upstream.peers[0].send(b"\x81\x02hi")
        await until(lambda: len(front.sandboxes.accesses) == 2)


async def test_a_client_may_ask_not_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "WEBSOCKET_NEWS_SECONDS", 0.1)
    async with service() as backend, socket_front(backend.address) as front:
        async with front.connect(additional_headers={"OpenSandbox-Access-Renew": "skip"}) as client:
            for _ in range(5):
                await client.send("hi")
                await client.recv()
                await asyncio.sleep(0.1)
        assert front.sandboxes.accesses == []
        assert backend.last.request is not None
        assert "OpenSandbox-Access-Renew" not in backend.last.request.headers
