"""One connection on a real socket: answers, pipelines, early ends, deadlines, and its place among others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct

import pytest
from tests.kernel.web.http1.service import PATIENCE, Server, serving
from tests.support.waiting import until

from shoal.web.http1 import ConnectionLimits

CLOSE = b"Connection: close\r\n"


def get(path: bytes, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/" + version, b"Host: a", *lines, b"", b""]) + body


def post(path: bytes, body: bytes, *lines: bytes) -> bytes:
    return get(path, b"Content-Length: %d" % len(body), *lines, method=b"POST", body=body)


def bodies(answer: bytes) -> list[bytes]:
    """Of answers with a Content-Length, one after another."""
    found = []
    while answer:
        head, _, answer = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # all have one
        found.append(answer[:length])
        answer = answer[length:]
    return found


async def closed(reader: asyncio.StreamReader) -> None:
    """Return once the server has closed the connection, in whichever way, without a word."""
    with contextlib.suppress(ConnectionResetError):
        assert not await asyncio.wait_for(reader.read(), PATIENCE)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer with a Content-Length."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # all have one
    return int(head.split()[1]), await asyncio.wait_for(reader.readexactly(length), PATIENCE)


async def test_pipelined_requests_are_answered_in_order_whatever_the_packets() -> None:
    chunked = get(b"/", b"Transfer-Encoding: chunked", method=b"PUT", body=b"2\r\nab\r\n0\r\nHost: x\r\n\r\n")
    data = get(b"/") + post(b"/", b"abc") + chunked + post(b"/early", b"xyz") + get(b"/", CLOSE[:-2])
    wanted = [b"GET ", b"POST abc", b"PUT ab", b"no", b"GET "]
    async with serving() as server:
        assert bodies(await server.raw(data)) == wanted
        assert bodies(await server.raw(*(data[index : index + 1] for index in range(len(data))))) == wanted


async def test_a_pipelined_flood_waits_as_bytes() -> None:
    async with serving() as server:
        _, writer = await server.open()
        writer.write(get(b"/hold") * 100_000)
        await until(lambda: server.service.seen)
        (connection,) = server.server.server_state.connections
        await until(lambda: len(connection.reader.rest) > 65536)  # type: ignore[union-attr]  # it is ours
        assert len(server.service.seen) == len(server.server.server_state.tasks) == 1
        writer.transport.abort()


async def test_http_1_0_gets_no_chunks() -> None:
    async with serving() as server:
        old = await server.raw(get(b"/unsized", version=b"1.0"))
        assert old.endswith(b"\r\n\r\nhello")
        assert b"transfer-encoding" not in old
        assert b"connection: close" in old
        new = await server.raw(get(b"/unsized", CLOSE[:-2]))
        assert new.endswith(b"\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")
        assert (await server.raw(b"GET / HTTP/1.0\r\n\r\n")).endswith(b"\r\n\r\nGET ")


async def test_http_1_0_is_not_told_to_go_on() -> None:
    request = get(b"/", b"Expect: 100-continue", b"Content-Length: 1", method=b"POST", version=b"1.0")
    async with serving() as server:
        assert (await server.raw(request, b"a")).startswith(b"HTTP/1.1 200 ")


async def test_a_cut_answer_without_length_is_no_silent_end() -> None:
    async with serving() as server:
        reader, writer = await server.open()
        writer.write(get(b"/cut", version=b"1.0"))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), PATIENCE)
        assert (await server.raw(get(b"/cut"))).endswith(b"4\r\nhalf\r\n")


async def test_a_head_without_body_leaves_at_once() -> None:
    async with serving() as server:
        reader, writer = await server.open()
        writer.write(get(b"/head-only"))
        assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize("path", [b"/no-answer", b"/split"])
async def test_an_application_that_fails_is_answered_for(path: bytes) -> None:
    async with serving() as server:
        assert (await server.raw(get(path))).startswith(b"HTTP/1.1 500 ")


async def test_head_has_no_body() -> None:
    async with serving() as server:
        data = get(b"/", method=b"HEAD") + get(b"/unsized", method=b"HEAD") + get(b"/", CLOSE[:-2])
        assert (await server.raw(data)).split(b"\r\n\r\n")[3:] == [b"GET "]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01", 400),
        (get(b"/", b"X : y"), 400),
        (get(b"/", b"Host: b"), 400),
        (get(b"/", b"X: " + b"y" * 70_000), 431),
        (get(b"/", *[b"X: y"] * 201), 431),
        (get(b"/", b"Transfer-Encoding: chunked", method=b"POST", body=b"zz\r\n"), 400),
        (get(b"/", b"Transfer-Encoding: chunked", method=b"POST", body=b"0\r\n" + b"t: x\r\n" * 300 + b"\r\n"), 431),
        (get(b"/", b"Transfer-Encoding: chunked", method=b"POST", body=b"1;" + b"e" * 70_000), 431),
        (get(b"/", b"Transfer-Encoding: gzip, chunked", method=b"POST"), 501),
    ],
)
async def test_what_is_no_request_is_told_and_the_connection_ends(request_: bytes, status: int) -> None:
    async with serving() as server:
        answer = await server.raw(request_)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("framing", [b"Content-Length: 20000000", b"Transfer-Encoding: chunked"])
async def test_an_early_answer_reaches_a_client_that_is_still_sending(framing: bytes) -> None:
    """It writes everything before it reads anything, as most do."""

    def talk(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
            client.sendall(get(b"/early", framing, method=b"POST") + b"ffffff\r\n")
            for _ in range(160):
                client.sendall(b"x" * 100_000)
            answer = b""
            while data := client.recv(65536):
                answer += data
            return answer

    async with serving() as server:
        answer = await asyncio.to_thread(talk, server.port)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer


async def test_an_early_answer_ends_the_reading() -> None:
    async with serving() as server:
        reader, writer = await server.open()
        writer.write(get(b"/early", b"Transfer-Encoding: chunked", method=b"POST") + b"0\r\n")
        assert (await answer_of(reader))[0] == 401
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):  # more than the server throws away
                writer.write(b"t: x\r\n" * 100_000)
                await asyncio.wait_for(writer.drain(), PATIENCE)
        await until(writer.transport.is_closing)


async def test_a_short_body_that_nobody_wants_keeps_the_connection() -> None:
    async with serving() as server:
        reader, writer = await server.open()
        writer.write(get(b"/early", b"Content-Length: 5", method=b"POST", body=b"ab"))
        assert await answer_of(reader) == (401, b"no")
        writer.write(b"cde" + get(b"/"))
        assert await answer_of(reader) == (200, b"GET ")
        writer.close()


async def test_a_client_that_waits_to_be_asked_is_asked_only_for_what_is_wanted() -> None:
    async with serving() as server:
        reader, writer = await server.open()
        writer.write(get(b"/", b"Content-Length: 1", b"Expect: 100-continue", method=b"POST"))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"a")
        assert await answer_of(reader) == (200, b"POST a")
        writer.write(get(b"/early", b"Content-Length: 1", b"Expect: 100-continue", method=b"POST"))
        assert b"connection: close" in await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()


QUICK = ConnectionLimits(head_seconds=0.2, idle_seconds=0.2, body_seconds=0.2, send_seconds=0.5)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"HTTP/1.1 408 "),
        (b"\r\n", b"HTTP/1.1 408 "),
        (get(b"/", b"Content-Length: 3", method=b"POST", body=b"a"), b"HTTP/1.1 408 "),
        (get(b"/", b"Transfer-Encoding: chunked", method=b"POST", body=b"1\r\na\r\n"), b"HTTP/1.1 408 "),
        (get(b"/streamed", b"Content-Length: 3", method=b"POST", body=b"a"), b"HTTP/1.1 408 "),
    ],
)
async def test_a_client_that_does_not_go_on_is_dropped(sent: bytes, answer: bytes) -> None:
    async with serving(QUICK) as server:
        told = await server.raw(sent)
        assert told.startswith(answer)
        assert bool(told) is bool(answer)


async def drip(server: Server, start: bytes) -> bytes:
    """What is told to a client that sends a byte whenever half of the time for it has passed."""
    reader, writer = await server.open()
    writer.write(start)
    told = asyncio.create_task(reader.read())
    while not told.done() and not writer.is_closing():
        writer.write(b"a")
        await asyncio.wait([told], timeout=0.1)
    writer.close()
    return await told


async def test_dripping_does_not_help() -> None:
    async with serving(QUICK) as server:
        assert (await drip(server, b"GET / HTTP/1.1\r\nX: ")).startswith(b"HTTP/1.1 408 ")
        start = get(b"/", b"Content-Length: 1000", method=b"POST")
        assert (await drip(server, start)).startswith(b"HTTP/1.1 408 ")


async def test_a_streamed_body_may_be_slow_but_not_silent() -> None:
    async with serving(QUICK) as server:
        reader, writer = await server.open()
        writer.write(get(b"/streamed", b"Content-Length: 20", method=b"POST"))
        for _ in range(20):
            writer.write(b"a")
            await asyncio.sleep(0.05)
        assert await answer_of(reader) == (200, b"POST " + b"a" * 20)
        writer.close()


async def test_a_kept_connection_ends_when_nothing_comes() -> None:
    async with serving(QUICK) as server:
        reader, writer = await server.open()
        writer.write(get(b"/"))
        assert await answer_of(reader) == (200, b"GET ")
        assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()


async def test_the_server_takes_its_time() -> None:
    """No deadline of the client's counts while it is the application's turn."""
    async with serving(QUICK) as server:
        reader, writer = await server.open()
        writer.write(get(b"/hold"))
        await until(lambda: server.service.seen)
        await asyncio.sleep(1.5)  # longer than any of the limits, and two looks of the gate
        server.service.release.set()
        assert await answer_of(reader) == (200, b"held")
        writer.close()


async def test_a_client_that_takes_nothing_of_its_answer_is_dropped() -> None:
    async with serving(QUICK) as server:
        reader, writer = await server.open()
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
        writer.write(get(b"/pour"))
        await until(lambda: server.service.seen)
        await until(lambda: not server.server.server_state.connections)
        writer.close()
        assert reader is not None


async def test_idle_connections_leave_room_for_requests() -> None:
    async with serving(ConnectionLimits(requests=3)) as server:
        idle = [await server.open() for _ in range(20)]
        for _, writer in idle[:10]:
            writer.write(b"GET / HTTP/1.1\r\nX: ")
        assert bodies(await server.raw(get(b"/", CLOSE[:-2]))) == [b"GET "]
        for _, writer in idle:
            writer.close()


async def test_too_many_requests_in_flight() -> None:
    async with serving(ConnectionLimits(requests=2)) as server:
        held = [await server.open() for _ in range(2)]
        for _, writer in held:
            writer.write(get(b"/hold"))
        await until(lambda: len(server.service.seen) == 2)
        refused = await server.raw(post(b"/", b"abc"))
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in refused
        assert refused.endswith(b"\r\n\r\nService Unavailable")
        assert (await server.raw(get(b"/health", CLOSE[:-2]))).startswith(b"HTTP/1.1 200 ")
        server.service.release.set()
        for reader, writer in held:
            assert await answer_of(reader) == (200, b"held")
            writer.close()


async def test_one_address_has_a_share_of_the_requests() -> None:
    async with serving(ConnectionLimits(requests=4), trusted="") as server:
        held = [await server.open() for _ in range(2)]
        for _, writer in held:
            writer.write(get(b"/hold"))
        await until(lambda: len(server.service.seen) == 2)
        assert (await server.raw(get(b"/"))).startswith(b"HTTP/1.1 503 ")
        for _, writer in held:
            writer.close()


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"])
async def test_the_oldest_idle_connection_makes_room(trusted: str) -> None:
    limits = ConnectionLimits(connections=4 if trusted else 8)
    async with serving(limits, trusted=trusted) as server:
        idle = [await server.open() for _ in range(4)]
        await until(lambda: len(server.server.server_state.connections) == 4)
        idle[0][1].write(get(b"/"))
        assert await answer_of(idle[0][0]) == (200, b"GET ")  # the youngest from now on
        newcomer = await server.open()
        newcomer[1].write(get(b"/"))
        assert await answer_of(newcomer[0]) == (200, b"GET ")
        await closed(idle[1][0])
        idle[0][1].write(get(b"/"))
        assert await answer_of(idle[0][0]) == (200, b"GET ")
        for _, writer in [*idle, newcomer]:
            writer.close()


async def test_no_room_where_all_are_busy() -> None:
    async with serving(ConnectionLimits(connections=2)) as server:
        held = [await server.open() for _ in range(2)]
        for _, writer in held:
            writer.write(get(b"/hold"))
        await until(lambda: len(server.service.seen) == 2)
        reader, writer = await server.open()
        await closed(reader)
        writer.close()
        server.service.release.set()
        for held_reader, held_writer in held:
            assert await answer_of(held_reader) == (200, b"held")
            held_writer.close()


async def test_every_connection_is_counted_out() -> None:
    async with serving() as server:
        for packets in ([b""], [get(b"/")], [b"\x00"], [get(b"/early", b"Content-Length: 99999999", method=b"POST")]):
            _, writer = await server.open()
            writer.write(packets[0])
            await asyncio.sleep(0.05)
            client = writer.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        await until(lambda: not server.gate._places and not server.gate._idle and not server.gate._sites)


async def test_a_shutdown_ends_what_is_idle_and_waits_for_the_rest() -> None:
    async with serving() as server:
        idle, (reader, writer) = await server.open(), await server.open()
        writer.write(get(b"/hold") + get(b"/"))
        await until(lambda: server.service.seen)
        for connection in list(server.server.server_state.connections):
            connection.shutdown()
        assert await asyncio.wait_for(idle[0].read(), PATIENCE) == b""
        server.service.release.set()
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        assert bodies(answer) == [b"held"]
        assert b"connection: close" in answer
        idle[1].close()
        writer.close()
