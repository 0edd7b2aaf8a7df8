"""Connected sockets to ports of sandboxes.

A socket belongs to the namespace in which it was made, wherever it is used. So the broker makes a few in advance, and
the event loop connects them: no thread waits for a sandbox that does not answer. What is in stock costs a descriptor
each, and is closed when the sandbox ends.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from shoal_local.network import namespace
from shoal_local.network.client import Broker
from shoal_local.state.box import Started

STOCK: Final = 4
"""Sockets that are asked for at once."""
_LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

_LISTENER_ENDED: Final = (errno.ECONNRESET, errno.ENOTCONN)
"""Errors of a connection whose listener was closed before it was accepted."""


class Dialler:
    """Connects to ports of sandboxes. Used on the event loop.

    Args:
        started: the processes of a sandbox. Called on a thread; raises what is wrong with it.
        runs: whether a sandbox does; of one that does not, nothing is kept in stock.
    """

    def __init__(self, broker: Broker, started: Callable[[str], Started], runs: Callable[[str], bool]) -> None:
        self._broker = broker
        self._started = started
        self._runs = runs
        self._stock: dict[str, list[socket.socket]] = {}
        self._thread: ThreadPoolExecutor | None = None

    async def connect(self, sandbox_id: str, port: int) -> socket.socket:
        """A connected socket, of IPv6 where only that is listened on. Raises OSError, EngineFailure, NotFound."""
        try:
            return await self._connect(sandbox_id, await self._take(sandbox_id), port)
        except ConnectionRefusedError as refused:
            try:
                (other,) = await self._make(sandbox_id, socket.AF_INET6, 1)
                return await self._connect(sandbox_id, other, port)
            except OSError:
                raise refused from None

    def forget(self, sandbox_id: str) -> None:
        """The sandbox has ended: its namespace goes with the last socket."""
        for each in self._stock.pop(sandbox_id, ()):
            each.close()

    def close(self) -> None:
        """Let go of everything."""
        for sandbox_id in list(self._stock):
            self.forget(sandbox_id)
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    async def _connect(self, sandbox_id: str, sock: socket.socket, port: int) -> socket.socket:
        try:
            await asyncio.get_running_loop().sock_connect(sock, (_LOOPBACK[sock.family], port))
            if sock.getsockname()[:2] == sock.getpeername()[:2]:
                # Nobody listens, and the kernel picked the very port as the socket's own: it is connected to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nothing listens on the port")
        except OSError as error:
            sock.close()
            if error.errno in _LISTENER_ENDED:
                raise ConnectionRefusedError(errno.ECONNREFUSED, "what listened on the port has just ended") from error
            raise
        except BaseException:
            sock.close()
            raise
        return sock

    async def _take(self, sandbox_id: str) -> socket.socket:
        stock = self._stock.get(sandbox_id)
        if stock:
            return stock.pop()
        first, *rest = await self._make(sandbox_id, socket.AF_INET, STOCK)
        if self._runs(sandbox_id):
            self._stock.setdefault(sandbox_id, []).extend(rest)
        else:
            for each in rest:
                each.close()
        return first

    async def _make(self, sandbox_id: str, family: socket.AddressFamily, count: int) -> list[socket.socket]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="local-network")
        making = asyncio.get_running_loop().run_in_executor(self._thread, self._sockets, sandbox_id, family, count)
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_close_all)
            raise

    def _sockets(self, sandbox_id: str, family: socket.AddressFamily, count: int) -> list[socket.socket]:
        handle = namespace.of(self._started(sandbox_id))
        try:
            return self._broker.sockets(handle, family, count)
        finally:
            os.close(handle)


def _close_all(making: asyncio.Future[list[socket.socket]]) -> None:
    if not making.cancelled() and making.exception() is None:
        for each in making.result():
            each.close()
