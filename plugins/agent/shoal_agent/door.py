"""The port that code-interpreter clients probe before they run code.

They wait until something listens where a Jupyter server would. Without a Jupyter server the agent runs code itself, so
it listens there, and tells whoever asks that it is not Jupyter.
"""

from __future__ import annotations

import asyncio

from shoal_agent.agent import RunningAgent
from shoal_agent.log import LOG

PORT = 44771
HANDSHAKE_TIMEOUT = 5.0
"""Seconds that a connection has to send something."""
TEXT = b"no Jupyter server runs here: the agent runs code itself\n"
ANSWER = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


class Door:
    """Listens while the agent runs, unless `JUPYTER_HOST` names a server or the port is taken."""

    def __init__(self, agent: RunningAgent) -> None:
        self._port = _port(agent.environment.daemon.get("JUPYTER_PORT"))
        self._server: asyncio.Server | None = None
        if not agent.options.jupyter_host:
            agent.on_start.append(self._open)
            agent.on_stop.append(self._close)

    async def _open(self) -> None:
        try:
            self._server = await asyncio.start_server(_answer, "127.0.0.1", self._port)
        except OSError as error:
            LOG.info("does not listen on port %d for clients that probe it: %s", self._port, error.strerror)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()


def _port(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() and 0 < int(text) < 65536 else PORT


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            if await reader.read(4096):
                writer.write(ANSWER % (len(TEXT), TEXT))
                await writer.drain()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()
