"""The server in this process: what cannot be seen from the other end of a connection."""

from __future__ import annotations

import asyncio
import socket

from shoal_agent.http.app import App
from shoal_agent.http.routes import Routes
from shoal_agent.http.server import Server
from shoal_agent.listening import listen


async def test_an_event_does_not_wait_for_the_acknowledgement_of_the_one_before() -> None:
    server, listener = Server(App(Routes(), [])), listen("127.0.0.1", 0)
    await server.start(listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 404 ")
    (connection,) = server.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    writer.close()
    await writer.wait_closed()
    await server.stop(0)
