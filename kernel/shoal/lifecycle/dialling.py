"""Connections that a runtime makes itself, where a port has no address."""

from __future__ import annotations

import asyncio
import socket

import structlog

from shoal.errors import InternalError, ShoalError
from shoal.models import codes
from shoal.models.workload import Tunnel
from shoal.plugin.interfaces import Runtime

log = structlog.get_logger("shoal.reach")


async def dial(runtime: Runtime, tunnel: Tunnel) -> socket.socket:
    """A connected socket, which the caller closes.

    Raises OSError and ShoalError as the runtime does; InternalError for whatever else it raises or returns, which is
    logged.
    """
    try:
        found = await runtime.connect(tunnel.sandbox_id, tunnel.port)
    except (OSError, ShoalError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("runtime failed to connect", runtime=runtime.name, sandbox_id=tunnel.sandbox_id)
        raise InternalError(codes.INTERNAL_ERROR, "The runtime could not connect to the sandbox.") from error
    if isinstance(found, socket.socket):
        found.setblocking(False)
        return found
    log.error("runtime connected to no socket", runtime=runtime.name, returned=type(found).__name__)
    raise InternalError(codes.INTERNAL_ERROR, "The runtime could not connect to the sandbox.")
