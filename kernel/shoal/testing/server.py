"""A real server for the tests of a plugin: on a port of loopback, with a store of its own that goes with the test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.server import uvicorn_config
from shoal.testing.pretend import PretendPlugin

PRETEND: Final = "pretend_runtime"
"""Name of the plugin that is added where none of the given ones has a runtime."""


class RunningServer:
    """A server that answers.

    Attributes:
        url: its base, ``http://127.0.0.1:{port}``.
        home: the directory that holds its store, and whatever a runtime on this machine keeps.
        app: the server as an object; `shoal.app` is no part of the plugin contract.
    """

    def __init__(self, url: str, home: Path, app: Shoal) -> None:
        self.url = url
        self.home = home
        self.app = app


@asynccontextmanager
async def server_with(
    config: Mapping[str, Any] | None = None, *, home: Path | None = None, **plugins: object
) -> AsyncIterator[RunningServer]:
    """A server with these plugins, by name, and no others but the default store; stopped when the block ends.

    Where none of them registers a runtime, `shoal.testing.pretend` adds one whose sandboxes are in memory.

    Args:
        config: as the configuration file would be parsed: tables by name. ``server.host``, ``store.path`` and
            ``plugins.enabled`` have values here that keep to this test; what is given wins.
        home: where the store is kept, to start a second server on it; None for a directory that is removed afterwards.

    Raises ConfigError as a start does.
    """
    with _directory(home) as directory:
        given = dict(plugins)
        if not any(hasattr(plugin, "shoal_register_runtimes") for plugin in given.values()):
            given[PRETEND] = PretendPlugin()
        app = Shoal(Loaded(raw=_raw(config or {}, directory, list(given))), plugins=given, environ={})
        with _listener() as listener:
            await app.start()
            try:
                async with _serving(app, listener) as url:
                    yield RunningServer(url, directory, app)
            finally:
                await app.stop()


@contextlib.contextmanager
def _directory(home: Path | None) -> Iterator[Path]:
    if home is not None:
        yield home
        return
    with tempfile.TemporaryDirectory(prefix="shoal-test-") as temporary:
        yield Path(temporary)


def _raw(config: Mapping[str, Any], home: Path, plugins: list[str]) -> dict[str, Any]:
    """The configuration with what keeps a server to its test."""
    own: dict[str, dict[str, Any]] = {
        "server": {"host": "127.0.0.1", "timeout_graceful_shutdown": 1},
        "store": {"path": str(home / "shoal.db")},
        "plugins": {"enabled": plugins},
    }
    return {**config, **{name: {**table, **config.get(name, {})} for name, table in own.items()}}


@contextlib.contextmanager
def _listener() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener


@asynccontextmanager
async def _serving(app: Shoal, listener: socket.socket) -> AsyncIterator[str]:
    server = _Server(uvicorn_config(app, app.settings.server))
    serving = asyncio.create_task(server.serve([listener]), name="server under test")
    try:
        await server.up.wait()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """One that leaves the signals of the process to the tests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
