"""The port proxy: `/proxy/{port}/…` is what listens on 127.0.0.1 inside of the sandbox."""

from __future__ import annotations

import asyncio

from shoal_agent.agent import RunningAgent
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, text_response
from shoal_agent.http.routes import ANY, Routes
from shoal_agent.http.token import HEADER
from shoal_agent.log import LOG
from shoal_agent.proxy.forward import Unreachable, forward
from shoal_agent.proxy.reply import Fields
from shoal_agent.proxy.upstream import AppConnection, UpstreamPool

CONNECT_SECONDS = 10.0
MAX_POOLS = 64
"""Ports whose idle connections are kept."""


class PortProxy:
    """Hands requests on to ports of this sandbox.

    Args:
        own: the agent's port, which is reached through itself where only one port of a sandbox is published.
    """

    def __init__(self, own: int) -> None:
        self._own = own
        self._pools: dict[int, UpstreamPool] = {}

    async def handle(self, request: Request) -> Answer:
        """The answer of the application on the port that the path names; 400 and 502 as text."""
        text, _, rest = request.params["rest"].partition("/")
        if not text:
            return text_response("the path names no port: /proxy/{port}/...", 400)
        if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
            return text_response(f"{text} is no port", 400)
        query = request.target.partition("?")
        target = f"/{rest}{query[1]}{query[2]}"
        try:
            return await forward(
                request, self._pool(int(text)), target, _fields(request, keep_token=int(text) == self._own)
            )
        except Unreachable as error:
            LOG.info("port %s: %s", text, error)
            return text_response(f"port {text} cannot be reached: {error}", 502)

    def _pool(self, port: int) -> UpstreamPool:
        pool = self._pools.pop(port, None) or UpstreamPool(lambda: _connect(port))
        self._pools[port] = pool  # the last one used is the last in order
        if len(self._pools) > MAX_POOLS:
            self._pools.pop(next(iter(self._pools))).close()
        return pool

    async def close(self) -> None:
        """Closes what is idle."""
        for pool in self._pools.values():
            pool.close()


async def _connect(port: int) -> AppConnection:
    """Raises OSError."""
    async with asyncio.timeout(CONNECT_SECONDS):
        return (await asyncio.get_running_loop().create_connection(AppConnection, "127.0.0.1", port))[1]


def _fields(request: Request, *, keep_token: bool) -> Fields:
    """The fields that the application gets: the client's own, and where the request comes from.

    The token goes no further, save to the agent itself, which asks for it once more.
    """
    dropped = ("x-forwarded-for",) if keep_token else (HEADER.lower(), "x-forwarded-for")
    fields = [(n, v) for n, v in request.headers.fields if n.lower() not in dropped]
    chain = request.headers.get("x-forwarded-for")
    fields.append(("X-Forwarded-For", f"{chain}, {request.peer}" if chain else request.peer))
    if request.headers.get("x-forwarded-proto") is None:
        fields.append(("X-Forwarded-Proto", "http"))
    return fields


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """`/proxy/`."""
    proxy = PortProxy(agent.options.port)
    agent.on_stop.append(proxy.close)
    routes.add(ANY, "/proxy/{rest...}", proxy.handle)
