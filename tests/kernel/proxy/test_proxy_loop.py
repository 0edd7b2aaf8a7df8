"""A request that comes back to the proxy again and again."""

from __future__ import annotations

import json

import pytest
from tests.kernel.proxy.harness import Sandboxes, answering, front, headers, ok
from tests.kernel.proxy.sockets import service, socket_front

from shoal.errors import LoopDetected
from shoal.proxy.headers import HOPS, MAX_HOPS, hop_count, read_request

PROXY = "/sandboxes/s/proxy/80"


async def test_a_proxy_that_is_its_own_upstream_says_so() -> None:
    sandboxes = Sandboxes()
    async with front(sandboxes=sandboxes) as server:
        # Every pass is to the same path, as with a preview host, which leaves the path alone.
        sandboxes.addresses["s"] = f"127.0.0.1:{server.port}{PROXY}"
        status, _, body = await server.get(PROXY)
        passes = len(sandboxes.accesses)
    assert (status, json.loads(body)["code"]) == (508, "PROXY::LOOP_DETECTED")
    assert passes == MAX_HOPS + 1


async def test_a_request_that_came_by_other_proxies_goes_through() -> None:
    async with answering(ok()).running() as upstream, front(s=upstream.address) as server:
        assert (await server.get(PROXY, "X-Forwarded-Proto: https"))[0] == 200
        assert (await server.get(PROXY, f"{HOPS.decode()}: 3", "X-Forwarded-Proto: https"))[0] == 200
        assert (await server.get(PROXY))[0] == 200
    assert [headers(head, HOPS) for head in upstream.heads] == [[b"1"], [b"4"], []]


async def test_a_websocket_that_comes_back_again_and_again_is_closed() -> None:
    async with service() as backend, socket_front(backend.address) as server:
        code, reason = await server.refused(additional_headers={HOPS.decode(): "8"})
        assert (code, backend.clients) == (1011, [])
        assert "again and again" in reason
        told = {HOPS.decode(): "7", "X-Forwarded-Proto": "http"}
        async with server.connect(additional_headers=told):
            assert backend.last.request is not None
            assert backend.last.request.headers[HOPS.decode()] == "8"


@pytest.mark.parametrize("count", [b"8", b"9", b"100", b"999999999999999999"])
def test_too_many_passes(count: bytes) -> None:
    with pytest.raises(LoopDetected):
        read_request([(HOPS, count)])


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        ([], []),
        ([(b"x-forwarded-proto", b"http")], [(HOPS, b"1")]),
        ([(b"x-forwarded-proto", b"gopher")], []),
        ([(HOPS, b"2")], [(HOPS, b"3")]),
        ([(HOPS, b"2"), (b"x-forwarded-proto", b"https")], [(HOPS, b"3")]),
        ([(b"x-forwarded-proto", b"https"), (HOPS, b"2")], [(HOPS, b"3")]),
        ([(HOPS, b"-1")], [(HOPS, b"1")]),
        ([(HOPS, b"many")], [(HOPS, b"1")]),
    ],
)
def test_what_is_counted(sent: list[tuple[bytes, bytes]], count: list[tuple[bytes, bytes]]) -> None:
    request = read_request(sent)
    assert hop_count(request) == count
    assert request.kept == []
