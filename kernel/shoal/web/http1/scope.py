"""What a request is to the application: its ASGI scope; and to the WebSocket protocol: its head, written out again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from shoal.proxy.asgi import TARGET

if TYPE_CHECKING:
    import asyncio

    from shoal.errors import ShoalError
    from shoal.proxy.asgi import Scope
    from shoal.web.http1.head import Head

REFUSED: Final = "shoal.refused"
"""Scope type of what is no request: the application answers with the ShoalError in ``scope["error"]``."""
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class Ends(NamedTuple):
    """Both ends of a connection, as every scope of it has them."""

    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: str

    @classmethod
    def of(cls, transport: asyncio.Transport) -> Ends:
        """Those of an open connection."""
        scheme = "https" if is_ssl(transport) else "http"
        return cls(get_local_addr(transport), get_remote_addr(transport), scheme)


def request_scope(head: Head, ends: Ends) -> Scope:
    """The scope of a request."""
    target = head.target
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    server, client, scheme = ends
    return {
        "type": "http",
        "asgi": _ASGI.copy(),
        "http_version": "1.0" if head.http10 else "1.1",
        "server": server,
        "client": client,
        "scheme": scheme,
        "root_path": "",
        "method": head.method,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": head.headers,
        TARGET: target,
    }


def refused_scope(error: ShoalError, ends: Ends) -> Scope:
    """The scope of what is no request."""
    return {
        "type": REFUSED,
        "error": error,
        "method": "",
        "path": "",
        "scheme": ends.scheme,
        "client": ends.client,
        "headers": [],
    }


def written_out(head: Head) -> bytes:
    """The head's bytes, for another protocol to read."""
    lines = [head.method.encode() + b" " + head.target + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in head.headers]
    return b"\r\n".join([*lines, b"", b""])
