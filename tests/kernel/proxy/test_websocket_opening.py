"""How a WebSocket to a sandbox is opened, or refused so that the client can read why (docs/wire/api.md section 16)."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from tests.kernel.proxy.harness import PATIENCE, Upstream, answering
from tests.kernel.proxy.sockets import (
    HANDSHAKE,
    PATH,
    ending,
    raw_service,
    service,
    socket_front,
)
from tests.kernel.web.fakes import WordAuthenticator
from tests.support.waiting import until
from websockets.exceptions import InvalidStatus

from shoal.config.settings import ProxySettings
from shoal.errors import NotFound

NOBODY = "127.0.0.1:1"  # where nothing listens
SECRETS = {
    "OPEN-SANDBOX-API-KEY": "the-key",
    "Cookie": "session=1",
    "Authorization": "Bearer x",
    "OpenSandbox-Secure-Access": "token",
    "Forwarded": "for=1.2.3.4",
    "X-Forwarded-For": "1.2.3.4",
    "X-Real-IP": "1.2.3.4",
    "OpenSandbox-Access-Renew": "later",
    "Proxy-Authorization": "x",
}


async def test_what_the_service_is_told() -> None:
    async with service() as backend, socket_front(backend.address) as front:
        front.sandboxes.headers = [(b"x-endpoint", b"own"), (b"opensandbox-secure-access", b"token")]
        headers = [*SECRETS.items(), ("X-Twice", "1"), ("X-Twice", "2"), ("X-Endpoint", "his")]
        async with front.connect(
            PATH + "/a%2Fb//c?q=%20&r", additional_headers=headers, origin="https://a.test", compression=None
        ):
            request = backend.last.request
        assert request is not None
        assert request.path == "/chat/a%2Fb//c?q=%20&r"
        told = request.headers
        assert told["Host"] == backend.address
        assert told["Origin"] == "https://a.test"
        assert told["User-Agent"].startswith("Python/")
        assert told.get_all("X-Twice") == ["1", "2"]
        assert told["X-Endpoint"] == "own"
        assert told["X-Forwarded-For"] == "1.2.3.4"  # uvicorn takes the word of a proxy on this machine
        assert told["X-Forwarded-Host"] == f"127.0.0.1:{front.port}"
        assert told["X-Forwarded-Proto"] == "http"
        assert not {name.lower() for name in SECRETS} - {"x-forwarded-for"} & {name.lower() for name in told}
        assert "Sec-WebSocket-Extensions" not in told


@pytest.mark.parametrize("path", ["/sandboxes/box/proxy/1/x", "/v1/sandboxes/b%6Fx/proxy/8080/x"])
async def test_both_mounts(path: str) -> None:
    async with service() as backend, socket_front(backend.address) as front:
        async with front.connect(path) as client:
            await client.send("hi")
            assert await client.recv() == "hi"
            assert client.response is not None
            assert len(client.response.headers["X-Request-ID"]) == 32
        assert backend.last.request is not None
        assert backend.last.request.path == "/x"
        await until(lambda: front.access.entries)
        assert front.access.entries[0].sandbox_id == "box"


async def test_an_address_with_a_prefix() -> None:
    async with service() as backend, socket_front(backend.address + "/base/") as front, front.connect():
        assert backend.last.request is not None
        assert backend.last.request.path == "/base/chat"


async def test_the_service_chooses_the_subprotocol() -> None:
    async with service(subprotocols=["v1"]) as backend, socket_front(backend.address) as front:
        async with front.connect(subprotocols=["v3", "v1"]) as client:
            assert client.subprotocol == "v1"
        async with front.connect() as client:
            assert client.subprotocol is None


async def test_what_the_service_answers_travels_back() -> None:
    upstream, _ = raw_service(headers=b"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: x\r\nX-Own: 1\r\nTrailer: 1")
    async with upstream.running(), socket_front(upstream.address) as front, front.connect() as client:
        assert client.response is not None
        told = client.response.headers
        assert told.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert told["X-Own"] == "1"
        assert "Server" not in told
        assert "Trailer" not in told


@pytest.mark.parametrize("status", [200, 302, 401, 404, 503])
async def test_a_service_that_refuses(status: int) -> None:
    """1008 without a reason; nobody follows where it points to."""
    other = answering(b"")
    async with other.running():
        location = f"Location: ws://{other.address}/\r\n".encode()
        refusing = answering(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n%b\r\n" % (status, location))
        async with refusing.running(), socket_front(refusing.address) as front:
            assert await front.refused() == (1008, "")
            assert (refusing.connections, other.connections) == (1, 0)


BROKEN = {
    "not HTTP": b"SSH-2.0-x\r\n\r\n",
    "the wrong answer to the key": b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 OK\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "headers without end": b"HTTP/1.1 101 OK\r\n" + b"X: y\r\n" * 20000,
    "nothing": b"",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
async def test_a_service_that_does_not_speak_websocket(answer: bytes) -> None:
    upstream = answering(answer, close=True)
    async with upstream.running(), socket_front(upstream.address) as front:
        code, reason = await front.refused(subprotocols=["v1"])
        assert code == 1011
        assert reason.startswith("The sandbox's service ")
        assert front.access.entries[0].status == 502


@pytest.mark.parametrize("choice", [b"Sec-WebSocket-Protocol: v9", b"Sec-WebSocket-Extensions: x-unknown"])
async def test_a_service_that_chooses_what_was_not_offered(choice: bytes) -> None:
    upstream, _ = raw_service(headers=b"\r\n" + choice)
    async with upstream.running(), socket_front(upstream.address) as front:
        assert (await front.refused())[0] == 1011


async def test_a_service_that_cannot_be_reached_or_does_not_answer() -> None:
    async with socket_front(NOBODY) as front:
        assert await front.refused() == (1011, "The sandbox's service on port 8080 could not be connected to.")

    async def silent(peer: object) -> None:
        await asyncio.Event().wait()

    upstream = Upstream(silent)
    settings = ProxySettings(connect_timeout_seconds=0.2)
    async with upstream.running(), socket_front(upstream.address, settings=settings) as front:
        assert await front.refused() == (1011, "The sandbox's service on port 8080 took too long.")


async def test_a_sandbox_that_is_not_there() -> None:
    async with socket_front("") as front:
        assert await front.refused() == (1011, "No such sandbox.")
        entry = front.access.entries[0]
        assert (entry.status, entry.close_code, entry.sandbox_id) == (404, 1011, "box")


async def test_a_reason_is_cut_at_a_characters_end() -> None:
    async with socket_front("") as front:
        waiting = front.sandboxes.pending["box"] = asyncio.get_running_loop().create_future()
        waiting.set_exception(NotFound("TEST::LONG", "é" * 100))
        assert await front.refused() == (1011, "é" * 61)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/sandboxes", "/v1/sandboxes/box/proxy/0/", "/v1/sandboxes/box/proxy/x/", "/sandboxes/box/proxy/65536"],
)
async def test_no_such_route(path: str) -> None:
    async with socket_front(NOBODY, authenticators=[WordAuthenticator()]) as front:
        with pytest.raises(InvalidStatus) as refused:
            await front.connect(path)
        assert refused.value.response.status_code == 403
        assert [entry.status for entry in front.access.entries] == [403]


async def test_the_key_is_asked_for_as_for_requests() -> None:
    async with service() as backend, socket_front(backend.address, authenticators=[WordAuthenticator()]) as front:
        assert (await front.refused())[0] == 1008
        assert (await front.refused(additional_headers={"x-word": "wrong"}))[0] == 1008
        assert [entry.status for entry in front.access.entries] == [401, 401]
        assert not backend.clients


async def test_secure_access() -> None:
    async with service() as backend, socket_front(backend.address) as front:
        front.sandboxes.headers = [(b"opensandbox-secure-access", b"token")]
        for sent in ({}, {"OpenSandbox-Secure-Access": "tokem"}):
            code, reason = await front.refused(additional_headers=sent)
            assert code == 1008
            assert "token" not in reason
        assert not backend.clients
        async with front.connect(additional_headers={"OpenSandbox-Secure-Access": "token"}):
            assert len(backend.clients) == 1


async def test_a_pending_sandbox_is_waited_for() -> None:
    async with service() as backend, socket_front("") as front:
        address = front.sandboxes.pending["box"] = asyncio.get_running_loop().create_future()
        opening = asyncio.ensure_future(front.connect().__aenter__())
        await asyncio.sleep(0.1)
        assert not opening.done()
        address.set_result(backend.address)
        client = await opening
        await client.send("hi")
        assert await client.recv() == "hi"
        await client.close()


async def test_a_client_that_does_not_wait() -> None:
    async with socket_front("") as front:
        address = front.sandboxes.pending["box"] = asyncio.get_running_loop().create_future()
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write("\r\n".join([*HANDSHAKE, "", ""]).format(path=PATH).encode())
        await asyncio.sleep(0.1)
        writer.close()
        await until(lambda: front.access.entries)
        assert (front.access.entries[0].status, front.access.entries[0].complete) == (499, False)
        assert address.cancelled()


BAD_HANDSHAKES = {
    "version": ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8", 426),
    "key": ("AAAAAAAAAAAAAAAAAAAAAA==", "AAAA", 400),
    "no key": ("Sec-WebSocket-Key", "X-Key", 400),
    "method": ("GET {path}", "POST {path}", 400),
}


@pytest.mark.parametrize(("what", "instead", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
async def test_a_handshake_that_is_none(what: str, instead: str, status: int) -> None:
    request = "\r\n".join([*HANDSHAKE, "", ""]).replace(what, instead).format(path=PATH).encode()
    async with socket_front(NOBODY) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert (b"sec-websocket-version: 13\r\n" in answer) is (status == 426)


@pytest.mark.parametrize(("target", "status"), [("http://else.test{path}", 101), ("http://else.test", 403)])
async def test_a_target_in_absolute_form(target: str, status: int) -> None:
    request = "\r\n".join([*HANDSHAKE, "", ""]).replace("{path}", target).format(path=PATH).encode()
    async with service() as backend, socket_front(backend.address) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(request)
        assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"HTTP/1.1 %d " % status)
        writer.close()


async def test_open_ones_leave_room_for_requests() -> None:
    """`server.limit_concurrency` bounds requests and handshakes, not the WebSockets that are open."""
    async with (
        service() as backend,
        socket_front(backend.address, limit=3) as front,
        aiohttp.ClientSession() as session,
    ):
        clients = [await front.connect() for _ in range(5)]
        async with session.get(f"http://127.0.0.1:{front.port}/health") as answer:
            assert answer.status == 200
        idle = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(5)]
        async with front.connect():
            pass
        for _, writer in idle[:3]:
            writer.write(b"POST /v1/sandboxes HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        await until(lambda: len(front.server.server_state.tasks) >= 3)
        with pytest.raises(InvalidStatus) as refused:
            await front.connect()
        assert refused.value.response.status_code == 503
        for _, writer in idle:
            writer.close()
        for client in clients:
            await client.close()


async def test_too_many() -> None:
    settings = ProxySettings(max_websockets=1)
    async with service() as backend, socket_front(backend.address, settings=settings) as front:
        async with front.connect():
            assert await front.refused() == (1013, "Too many WebSockets are open.")
        await until(lambda: len(front.access.entries) == 2)
        async with front.connect() as client:
            await client.send("hi")
            assert await client.recv() == "hi"


async def test_a_refusal_chooses_a_subprotocol() -> None:
    """Browsers would take the answer for a failure otherwise, and not read the close."""
    async with socket_front("") as front, front.connect(subprotocols=["v2", "v1"]) as client:
        assert client.subprotocol == "v2"
        assert await ending(client) == (1011, "No such sandbox.")


@pytest.fixture
def environment_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")


@pytest.mark.usefixtures("environment_proxy")
async def test_environment_proxies_do_not_apply() -> None:
    async with service() as backend, socket_front(backend.address) as front, front.connect() as client:
        await client.send("hi")
        assert await client.recv() == "hi"


async def test_aiohttp_reads_why_it_was_refused() -> None:
    async with socket_front("") as front, aiohttp.ClientSession() as session:
        client = await session.ws_connect(f"http://127.0.0.1:{front.port}{PATH}")
        message = await client.receive(timeout=PATIENCE)
        assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 1011, "No such sandbox.")


async def test_a_message_in_the_packet_of_the_handshake_is_not_lost() -> None:
    async with service() as backend, socket_front(backend.address) as front, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        handshake = "\r\n".join([*HANDSHAKE, "", ""]).format(path=PATH).encode()
        writer.write(handshake + b"\x82\x85" + bytes(4) + b"early")  # binary, final, masked with zeros
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(7) == b"\x82\x05early"
        writer.close()


async def test_a_request_that_is_no_handshake_stays_a_request() -> None:
    """``Upgrade`` without ``Connection: upgrade``: answered in HTTP, not switched."""
    async with service() as backend, socket_front(backend.address) as front, aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{front.port}{PATH}", headers={"Upgrade": "websocket"}) as answer:
            assert answer.status == 400
        assert not backend.clients
