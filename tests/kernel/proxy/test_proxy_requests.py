"""What a sandbox's service is asked: paths, headers and bodies as the client sent them."""

from __future__ import annotations

import asyncio

import pytest
from tests.kernel.proxy.harness import PATIENCE, Peer, Upstream, answering, front, header, headers, ok
from tests.support.waiting import until

PROXY = "/sandboxes/s/proxy/80/"


@pytest.mark.parametrize(
    ("path", "upstream_path"),
    [
        ("/sandboxes/s/proxy/80", b"/"),
        ("/sandboxes/s/proxy/80/", b"/"),
        ("/v1/sandboxes/s/proxy/80/", b"/"),
        ("/v1/sandboxes/s/proxy/80//a%2Fb?x=%20", b"//a%2Fb?x=%20"),
        ("/sandboxes/s/proxy/80/a/../b%3Fc%23d//", b"/a/../b%3Fc%23d//"),
        ("/sandboxes/s/proxy/80/%e4%F6?a=1&a=2&b=%2B+%C3%A4&&=", b"/%e4%F6?a=1&a=2&b=%2B+%C3%A4&&="),
        ("/sandboxes/%73/proxy/80/%73", b"/%73"),
        ("http://elsewhere.test/sandboxes/s/proxy/80/a", b"/a"),
    ],
)
async def test_path_and_query_travel_byte_for_byte(path: str, upstream_path: bytes) -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        status, _, body = await server.get(path)
    assert (status, body) == (200, b"ok")
    assert upstream.heads[0].split(b" ")[1] == upstream_path


async def test_an_addresss_prefix_goes_first() -> None:
    async with answering(ok()).running() as upstream, front(s=f"{upstream.address}/proxy/80/") as server:
        await server.get("/sandboxes/s/proxy/80//a?b")
    assert upstream.heads[0].startswith(b"GET /proxy/80//a?b HTTP/1.1\r\n")
    assert header(upstream.heads[0], b"host") == upstream.address.encode()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
async def test_every_method_travels(method: str) -> None:
    answer = ok(b"", b"Allow: *") if method == "HEAD" else ok(b"answer", b"Allow: *")
    async with answering(answer).running() as upstream, front(s=upstream.address) as server:
        status, head, body = await server.get(PROXY, method=method)
    assert upstream.heads[0].startswith(method.encode() + b" / HTTP/1.1\r\n")
    assert (status, header(head, b"allow"), body) == (200, b"*", b"" if method == "HEAD" else b"answer")


async def test_headers_travel_and_nothing_is_invented() -> None:
    sent = [
        *["X-Twice: 1", "X-Other: o", "X-Twice: 2", "Via: 1.1 a", "Origin: http://o.test", "X-Latin: \xe4"],
        *["OPENSANDBOX-EGRESS-AUTH: e", "Range: bytes=0-1", "X-Request-ID: mine", "Empty:"],
        *["Authorization: Bearer s3cret", "Cookie: a=s3cret", "OPEN-SANDBOX-API-KEY: s3cret", "Keep-Alive: 5"],
        *["OpenSandbox-Secure-Access: s3cret", "OpenSandbox-Access-Renew: skip", "Forwarded: for=s3cret"],
        *["X-Forwarded-For: s3cret", "X-Forwarded-Host: s3cret", "X-Forwarded-Proto: s3cret", "X-Real-IP: s3cret"],
        *["X-Forwarded-Port: 1", "Proxy-Authorization: s3cret", "TE: trailers", "Trailer: X", "X-Named: s3cret"],
        *["Connection: X-Named, TE", "Upgrade: h2c", "Proxy-Connection: close"],
    ]
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        status, _, _ = await server.get(PROXY, *sent)
    assert status == 200
    assert upstream.heads[0].split(b"\r\n")[1:] == [
        b"host: " + upstream.address.encode(),
        *[b"x-twice: 1", b"x-other: o", b"x-twice: 2", b"via: 1.1 a", b"origin: http://o.test", b"x-latin: \xe4"],
        *[b"opensandbox-egress-auth: e", b"range: bytes=0-1", b"x-request-id: mine", b"empty: "],
        *[b"x-forwarded-proto: http", b"x-forwarded-host: shoal.test", b"x-forwarded-for: 127.0.0.1"],
        *[b"", b""],
    ]


async def test_the_endpoints_own_headers_are_added() -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        server.sandboxes.headers = [
            (b"OpenSandbox-Ingress-To", b"s-80"),
            (b"OPENSANDBOX-EGRESS-AUTH", b"token"),
            (b"X-Forwarded-For", b"evil"),
        ]
        await server.get(PROXY, "OpenSandbox-Ingress-To: other-1", "OPENSANDBOX-EGRESS-AUTH: mine")
    head = upstream.heads[0]
    assert headers(head, b"opensandbox-ingress-to") == [b"s-80"]
    assert headers(head, b"opensandbox-egress-auth") == [b"mine"]
    assert headers(head, b"x-forwarded-for") == [b"127.0.0.1"]


@pytest.mark.parametrize(("presented", "expected"), [("token", 200), ("Token", 401), ("", 401), (None, 401)])
async def test_an_endpoint_with_a_token_asks_for_it(presented: str | None, expected: int) -> None:
    lines = [] if presented is None else [f"OpenSandbox-Secure-Access: {presented}"]
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        server.sandboxes.headers = [(b"OpenSandbox-Secure-Access", b"token")]
        status, _, body = await server.get(PROXY, *lines)
        assert status == expected
        assert (b"MISSING_OR_INVALID_SECURE_ACCESS" in body) is (expected == 401)
        assert bool(server.sandboxes.accesses) is bool(upstream.heads) is (expected == 200)
        assert not [head for head in upstream.heads if b"token" in head.lower()]


@pytest.mark.parametrize(
    ("lines", "counted"),
    [([], True), (["OpenSandbox-Access-Renew: skip"], False), (["OpenSandbox-Access-Renew: Skip"], True)],
)
async def test_an_access_is_reported_unless_it_asks_not_to(lines: list[str], counted: bool) -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        await server.get("/v1/sandboxes/s/proxy/8080/", *lines)
    assert server.sandboxes.accesses == [("s", 8080, "http")] * counted


async def test_cookies_do_not_leak_between_sandboxes() -> None:
    cookie = ok(b"", b"Set-Cookie: a=1; Path=/")
    async with answering(cookie).running() as upstream, front(s=upstream.address, t=upstream.address) as server:
        await server.get(PROXY)
        await server.get(PROXY)
        await server.get("/sandboxes/t/proxy/80/")
    assert [headers(head, b"cookie") for head in upstream.heads] == [[], [], []]


async def test_the_environments_proxies_do_not_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        assert (await server.get(PROXY))[0] == 200


async def test_a_pending_sandbox_is_waited_for() -> None:
    async with answering(ok()).running() as upstream, front() as server:
        server.sandboxes.pending["s"] = asyncio.get_running_loop().create_future()
        request = asyncio.create_task(server.get(PROXY))
        await until(lambda: server.edge.under_way)
        server.sandboxes.pending["s"].set_result(upstream.address)
        assert (await request)[0] == 200


def echoing() -> Upstream:
    """Answers with the length and the content of each body."""

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            upstream.heads.append(head)
            if header(head, b"transfer-encoding"):
                body = b"".join(await peer.chunked_body())
            else:
                body = await peer.reader.readexactly(int(header(head, b"content-length") or b"0"))
            await peer.send(ok(body))

    upstream = Upstream(script)
    return upstream


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize("size", [1, 5000, 64 * 1024, 64 * 1024 + 1, 1_000_000])
async def test_a_body_of_known_length(method: str, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    async with echoing().running() as upstream, front(s=upstream.address) as server:
        status, _, answer = await server.get(PROXY, f"Content-Length: {size}", method=method, body=body)
    assert (status, answer == body) == (200, True)
    assert headers(upstream.heads[0], b"content-length") == [b"%d" % size]
    assert headers(upstream.heads[0], b"transfer-encoding") == []


@pytest.mark.parametrize("chunks", [[], [b"a"], [b"abc", b"d" * 70_000, b"e" * 300_000]])
async def test_a_chunked_body_stays_chunked(chunks: list[bytes]) -> None:
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX-Trailer: 1\r\n\r\n"
    async with echoing().running() as upstream, front(s=upstream.address) as server:
        status, _, answer = await server.get(PROXY, "Transfer-Encoding: chunked", method="POST", body=framed)
    assert (status, answer == b"".join(chunks)) == (200, True)
    assert headers(upstream.heads[0], b"transfer-encoding") == [b"chunked"]
    assert headers(upstream.heads[0], b"content-length") == []


async def test_an_empty_body_keeps_its_length() -> None:
    async with echoing().running() as upstream, front(s=upstream.address) as server:
        await server.get(PROXY, "Content-Length: 0", method="POST")
        await server.get(PROXY, method="POST")
    assert [headers(head, b"content-length") for head in upstream.heads] == [[b"0"], []]


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 3", "Content-Length: 4"],
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
        ["Content-Length: +3"],
        ["Transfer-Encoding: xchunked"],
        ["X: a\rb"],
        ["X: a\0b"],
        ["X : a"],
        ["Upgrade: websocket"],
    ],
)
async def test_smuggling_stops_here(lines: list[str]) -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        status, _, _ = await server.get(PROXY, *lines, method="POST", body=b"abc")
    assert (status, upstream.heads) == (400, [])


async def test_expect_is_passed_on_and_the_go_ahead_is_the_upstreams() -> None:
    asked = asyncio.Event()
    agreed = asyncio.Event()

    async def script(peer: Peer) -> None:
        head = await peer.head()
        assert header(head, b"expect") == b"100-continue"
        asked.set()
        await agreed.wait()
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.send(ok(await peer.reader.readexactly(3)))

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        reader, writer = await server.open()
        lines = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close"
        writer.write(f"PUT {PROXY} HTTP/1.1\r\n{lines}\r\n\r\n".encode())
        await asked.wait()
        agreed.set()
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.read()).endswith(b"\r\n\r\nabc")
        writer.close()


async def test_expect_refused_never_asks_for_the_body() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"

    async def script(peer: Peer) -> None:
        upstream.heads.append(await peer.head())
        await peer.send(refusal)
        upstream.heads.append(await peer.reader.read())  # nothing of the body, and not another request either

    upstream = Upstream(script)
    async with upstream.running(), front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        status, _, body = await server.get(PROXY, "Expect: 100-continue", "Content-Length: 3", method="PUT")
    assert (status, body) == (413, b"no")
    assert upstream.heads[1:] == [b""]


async def test_an_upstream_silent_on_expect_gets_the_body_all_the_same() -> None:
    async with echoing().running() as upstream, front(s=upstream.address) as server:
        raw = await server.raw(
            f"PUT {PROXY} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n"
            "Connection: close\r\n\r\nabc".encode()
        )
    assert raw.endswith(b"\r\n\r\nabc")


async def test_both_directions_flow_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(await peer.reader.readline(), 16):
            data = await peer.reader.readexactly(size + 2)
            await peer.send(b"%x\r\n%s" % (size, data))
        await peer.send(b"0\r\n\r\n")

    async with Upstream(script).running() as upstream, front(s=upstream.address) as server, asyncio.timeout(PATIENCE):
        reader, writer = await server.open()
        writer.write(
            f"POST {PROXY} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")  # the answer has begun before the body has
        for word in (b"ping", b"pong"):
            chunk = b"4\r\n%s\r\n" % word
            writer.write(chunk)
            assert await reader.readexactly(len(chunk)) == chunk
        writer.write(b"0\r\n\r\n")
        assert await reader.read() == b"0\r\n\r\n"
        writer.close()
