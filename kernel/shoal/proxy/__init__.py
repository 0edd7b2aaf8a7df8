"""HTTP streaming to a port of a sandbox, from the view to the wire (docs/wire/api.md section 15).

::

    asgi.py        the ASGI types that the proxy speaks
    target.py      the raw request path, taken apart without decoding it
    seam.py        what the proxy asks of the lifecycle
    resolve.py     from a target to an address, past the secure-access check
    headers.py     which headers travel, in which direction (pure functions)
    http.py        `HttpProxy`: one ASGI request to one sandbox
    exchange.py    one request and its answer, between the two halves
    client.py      the client's half of an exchange: gathers or pumps the body, notices when the client leaves
    lease.py       an exchange's hold on a connection, which ends when the connection is given back
    connection.py  the upstream's half: one HTTP/1.1 connection on an asyncio transport, with back-pressure
    deadline.py    the one timer of a connection
    response.py    the bytes of an upstream's answer, parsed without I/O
    pool.py        bounded reuse of upstream connections, and dialling
    leaving.py     closes connections of sandboxes that pause or end
    failures.py    what goes wrong, as errors that name no internal address
    websocket/     the same for WebSockets

Both kinds of traffic are resolved, filtered and counted as one.
"""

from __future__ import annotations

from shoal.proxy.failures import ResponseCut
from shoal.proxy.http import HttpProxy
from shoal.proxy.leaving import Leaving
from shoal.proxy.seam import Directory
from shoal.proxy.target import ProxyTarget, parse_target

__all__ = ["Directory", "HttpProxy", "Leaving", "ProxyTarget", "ResponseCut", "parse_target"]
