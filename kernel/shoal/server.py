"""The process: an event loop, a socket, the application, and an orderly end."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import structlog
import uvicorn

import shoal
from shoal import logs
from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.config.settings import ServerSettings
from shoal.errors import ConfigError, ShoalError
from shoal.proxy.websocket import UpgradeProtocol
from shoal.web.http1 import ConnectionGate, ConnectionLimits, HttpProtocol, TrustedPeers

log = structlog.get_logger("shoal.server")

COLLECT_AFTER = 10_000
"""New objects that the cycle collector waits for; Python's 700 are a few requests' worth, and cost 3 % of each."""


def serve(loaded: Loaded) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code. Raises ConfigError if the server must not start."""
    app = Shoal(loaded)
    logs.configure(app.settings.log)
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory(app.settings.server.loop)) as runner:
            runner.run(_run(app))
    finally:
        logs.shutdown()
    return 0


async def _run(app: Shoal) -> None:
    settings = app.settings.server
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.thread_pool_size, "shoal"))
    with _bind(settings) as listener:
        try:
            await app.start()
        except ShoalError as error:
            raise ConfigError(f"the server cannot start: {error.message}") from error
        _settle_collector()
        try:
            host, port = listener.getsockname()[:2]
            log.info("serving", host=host, port=port, version=shoal.__version__)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: None)  # uvicorn raises the signal again after its own shutdown
            await uvicorn.Server(uvicorn_config(app, settings)).serve([listener])
        finally:
            await app.stop()
            log.info("stopped")


def _settle_collector() -> None:
    """What the start left in memory stays: later collections, which stop everything, need not walk it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def uvicorn_config(app: Shoal, settings: ServerSettings) -> uvicorn.Config:
    """uvicorn around an application that is started already, with shoal's own HTTP and WebSocket protocols."""
    return uvicorn.Config(
        app.asgi,
        lifespan="off",
        log_config=None,
        access_log=False,
        http=cast(
            "type[asyncio.Protocol]",
            partial(HttpProtocol, ConnectionGate(ConnectionLimits.of(settings), TrustedPeers.of())),
        ),
        ws=UpgradeProtocol,
        timeout_keep_alive=settings.timeout_keep_alive,
        timeout_graceful_shutdown=settings.timeout_graceful_shutdown,
        limit_concurrency=settings.limit_concurrency or None,
        backlog=settings.backlog,
        headers=[("server", "shoal")],
        server_header=False,
        date_header=False,  # the edge writes it, unless a sandbox's service did
    )


def _bind(settings: ServerSettings) -> socket.socket:
    """Take the port before anything is opened, so that a second server ends with one clear line."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            raise ConfigError("server.loop: uvloop is not installed") from None
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _raise_file_limit() -> None:
    """Each sandbox and each proxied connection costs descriptors; the soft limit is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
