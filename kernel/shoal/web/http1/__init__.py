"""HTTP/1.1 on the wire: the protocol that uvicorn's server runs for each connection.

::

    protocol.py    `HttpProtocol`: one connection; its requests one after another, and what comes behind an answer
    connection.py  the same connection, as the transport has it: pace, deadlines, the end
    scope.py       a request as an ASGI scope
    cycle.py       one request and its answer, as ASGI's ``receive`` and ``send``
    reader.py      bytes to requests, without I/O: framing, bounds, trailers
    head.py        the head of a request: syntax (llhttp), Host, what frames the body
    answer.py      the answer's head and framing
    linger.py      a connection that was answered before its client had sent everything
    gate.py        all connections: how many, from where, which are idle, which have run out of time
    trust.py       peers that speak for many clients
    limits.py      the bounds, out of the configuration

A request is parsed as it is asked for: its head once it is whole, its body when the application receives it, the next
head once the answer is out. So what a client sends ahead waits as bytes, of which few are read, and no result depends
on how the bytes were cut into packets. Trailers are checked and dropped (RFC 9110 section 6.5.1).
"""

from __future__ import annotations

from shoal.web.http1.gate import ConnectionGate
from shoal.web.http1.limits import ConnectionLimits
from shoal.web.http1.protocol import HttpProtocol
from shoal.web.http1.scope import REFUSED
from shoal.web.http1.trust import TrustedPeers

__all__ = ["REFUSED", "ConnectionGate", "ConnectionLimits", "HttpProtocol", "TrustedPeers"]
