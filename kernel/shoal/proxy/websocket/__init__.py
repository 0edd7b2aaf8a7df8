"""WebSockets to a port of a sandbox (docs/wire/api.md section 16).

::

    proxy.py      `WebSocketProxy`: one WebSocket of a client to one sandbox
    upgrade.py    `UpgradeProtocol`: the client's handshake, as uvicorn's WebSocket protocol
    upstream.py   the sandbox's handshake
    handshake.py  what both handshakes say (pure functions)
    relay.py      two legs, and how the end of one becomes the end of the other
    leg.py        one leg: a transport, what comes from it, what goes to it
    frames.py     frames as they come off the wire (RFC 6455), parsed without I/O

Extensions are negotiated end to end, so a data frame is the same on both legs, mask and all: its header is
read, and its bytes go on as they came. Control frames end here: each leg is pinged and answered for itself, and a close
goes on as a new frame. The mask guards what lies between against a page that chooses its bytes (RFC 6455 section 10.3);
the browser's own does so on both legs.
"""

from __future__ import annotations

from shoal.proxy.websocket.proxy import SOCKET, ClientSocket, WebSocketProxy
from shoal.proxy.websocket.upgrade import UpgradeProtocol
from shoal.proxy.websocket.upstream import UpstreamRefused

__all__ = ["SOCKET", "ClientSocket", "UpgradeProtocol", "UpstreamRefused", "WebSocketProxy"]
