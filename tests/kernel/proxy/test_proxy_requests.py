"""What a sandbox's service is asked: paths, headers and bodies as the client sent them."""

from __future__ import annotations

import pytest
from proxy_harness import answering, front, header, headers

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


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
    ],
)
async def test_path_and_query_travel_byte_for_byte(path: str, upstream_path: bytes) -> None:
    async with answering(OK).running() as upstream, front(s=upstream.address) as server:
        status, _, body = await server.get(path)
    assert (status, body) == (200, b"ok")
    assert upstream.heads[0].split(b" ")[1] == upstream_path
