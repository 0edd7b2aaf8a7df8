"""What a client gets: the service's own answer, byte for byte, as it comes."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from tests.kernel.proxy.harness import PATIENCE, Peer, Upstream, answering, front, header, headers, ok

PROXY = "/v1/sandboxes/s/proxy/80/"


async def test_headers_travel_apart_and_in_order() -> None:
    answer = ok(
        b"hi",
        *[b"Set-Cookie: a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"X-A: 1", b"Set-Cookie: b=2", b"X-A: 2"],
        *[b"Server: inner/1", b"X-Request-ID: inner", b"Connection: keep-alive, X-Hop", b"X-Hop: h"],
        *[b"Keep-Alive: timeout=5", b"Access-Control-Allow-Origin: *", b"X-Latin: \xe4", b'ETag: W/"1"'],
    )
    async with answering(answer).running() as upstream, front(s=upstream.address) as server:
        status, head, body = await server.get(PROXY)
    assert (status, body) == (200, b"hi")
    assert headers(head, b"set-cookie") == [b"a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", b"b=2"]
    assert headers(head, b"x-a") == [b"1", b"2"]
    assert headers(head, b"content-length") == [b"2"]
    assert headers(head, b"x-latin") == [b"\xe4"]
    assert headers(head, b"etag") == [b'W/"1"']
    assert headers(head, b"access-control-allow-origin") == [b"*"]
    for name in (b"server", b"x-request-id", b"x-hop", b"keep-alive", b"transfer-encoding"):
        assert headers(head, name) == []


async def test_an_encoded_body_is_not_touched() -> None:
    body = gzip.compress(b"hello " * 100)
    answer = ok(body, b"Content-Encoding: gzip")
    async with answering(answer).running() as upstream, front(s=upstream.address) as server:
        _, head, received = await server.get(PROXY)
    assert (header(head, b"content-encoding"), received) == (b"gzip", body)
    assert headers(upstream.heads[0], b"accept-encoding") == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x=y\r\nc\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"abc"),
    ],
    ids=["chunked", "until close", "HTTP/1.0", "length and close", "interim"],
)
async def test_every_framing(answer: bytes) -> None:
    async with answering(answer, close=True).running() as upstream, front(s=upstream.address) as server:
        for _ in range(2):
            response = await server.http.get(PROXY)
            assert (response.status_code, response.content) == (200, b"abc")
            assert "link" not in response.headers


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body(status: int) -> None:
    answers = [b"HTTP/1.1 %d X\r\nContent-Length: 5\r\nETag: a\r\n\r\n" % status, ok()]
    async with answering(*answers).running() as upstream, front(s=upstream.address) as server:
        response = await server.http.get(PROXY)
        assert (response.status_code, response.content, response.headers["etag"]) == (status, b"", "a")
        assert (await server.http.get(PROXY)).text == "ok"
    assert upstream.connections == 1


async def test_head_keeps_the_length_and_the_connection() -> None:
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", ok(b"abcde")]
    async with answering(*answers).running() as upstream, front(s=upstream.address) as server:
        response = await server.http.head(PROXY)
        assert (response.headers["content-length"], response.content) == ("5", b"")
        assert (await server.http.get(PROXY)).text == "abcde"
    assert upstream.connections == 1


async def test_redirects_are_the_clients_to_follow() -> None:
    answer = b"HTTP/1.1 307 X\r\nLocation: /login?a=%2F\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer).running() as upstream, front(s=upstream.address) as server:
        _, head, _ = await server.get(PROXY)
        assert header(head, b"location") == b"/v1/sandboxes/s/proxy/80/login?a=%2F"
        _, head, _ = await server.get("/sandboxes/%73/proxy/080")
        assert header(head, b"location") == b"/sandboxes/%73/proxy/080/login?a=%2F"
    assert len(upstream.heads) == 2


@pytest.mark.parametrize(
    ("eip", "base"),
    [("a.test", b""), ("a.test:80/", b""), ("https://a.test:1/x/y/", b"/x/y"), (" a.test/x ", b"/x")],
)
async def test_with_an_eip_its_path_leads_back(eip: str, base: bytes) -> None:
    answer = b"HTTP/1.1 302 X\r\nLocation: /a\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer).running() as upstream, front(s=upstream.address, eip=eip) as server:
        _, head, _ = await server.get(PROXY)
    assert header(head, b"location") == base + b"/sandboxes/s/proxy/80/a"


async def test_events_are_passed_on_as_they_come() -> None:
    seen = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await peer.send(b"9\r\ndata: %d\n\n\r\n" % number)
            await seen.wait()
            seen.clear()
        await peer.send(b"0\r\n\r\n")

    async with (
        Upstream(script).running() as upstream,
        front(s=upstream.address) as server,
        asyncio.timeout(PATIENCE),
        server.http.stream("GET", PROXY) as response,
    ):
        number = 0
        async for event in response.aiter_bytes():
            assert event == b"data: %d\n\n" % number
            number += 1
            seen.set()
    assert number == 3


async def test_many_at_once_each_get_their_own_answer() -> None:
    everyone_is_here = asyncio.Event()

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            upstream.heads.append(head)
            if len(upstream.heads) == 200:
                everyone_is_here.set()
            await everyone_is_here.wait()
            await peer.send(ok(head.split(b" ")[1]))

    upstream = Upstream(script)
    async with upstream.running(), front(s=upstream.address) as server:
        for _ in range(2):
            answers = await asyncio.gather(*(server.get(f"{PROXY}{n}") for n in range(200)))
            assert [body for _, _, body in answers] == [b"/%d" % n for n in range(200)]
    assert upstream.connections == 200


async def test_an_upstream_that_refuses_a_body_and_hangs_up_is_heard() -> None:
    refusal = b"HTTP/1.1 413 X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(refusal)

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server:
        for _ in range(10):
            response = await server.http.post(PROXY, content=bytes(4 * 2**20))
            assert (response.status_code, response.text) == (413, "no")


async def test_an_answer_before_the_bodys_end_ends_the_exchange() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\nno")
        await peer.reader.read(1)  # hold the connection until the proxy lets go of it

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        reader, writer = await server.open()
        writer.write(f"POST {PROXY} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413")
        assert await reader.readexactly(2) == b"no"
        writer.write(bytes(1000000 - 3))  # the rest is thrown away unread, and the connection ends in good order
        writer.write(f"GET {PROXY} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert await reader.read() == b""
        writer.close()
    assert upstream.connections == 1
