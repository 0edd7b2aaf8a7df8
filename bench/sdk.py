"""The Python SDK as the client of a server: what its callers wait for."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing import get_context
from typing import Any

import httpx
from bench.harness import Server
from opensandbox import Sandbox, SandboxSync
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.models.execd import ExecutionHandlers, OutputMessage
from opensandbox.models.execd_sync import ExecutionHandlersSync

HOUR = timedelta(hours=1)
MEGABYTE = b"0123456789abcdef" * 65536


@dataclass(frozen=True)
class Place:
    """A server, and what its sandboxes are made of. A client keeps its connections unless `anew`.

    `silent`: the SDK is told to report no usage to the server (its `disable_metrics`). It does so after each create by
    a client of its own, with certificates that it loads again, which takes some 20 ms of processor time.
    """

    name: str
    server: Server
    image: str
    extensions: dict[str, str] = field(default_factory=dict)
    anew: bool = False
    silent: bool = False
    transport: httpx.BaseTransport = field(default_factory=httpx.HTTPTransport)

    @property
    def options(self) -> dict[str, Any]:
        """What every connection of the SDK is made with."""
        domain = self.server.base.removeprefix("http://")
        return {"domain": domain, "use_server_proxy": True, "request_timeout": HOUR, "disable_metrics": self.silent}

    def create(self) -> SandboxSync:
        """A sandbox whose agent answers."""
        kept: dict[str, Any] = {} if self.anew else {"transport": self.transport}
        return SandboxSync.create(
            self.image,
            timeout=HOUR,
            extensions=self.extensions,
            connection_config=ConnectionConfigSync(**self.options, **kept),
        )


@contextmanager
def sandbox(place: Place) -> Iterator[SandboxSync]:
    """A sandbox, killed afterwards."""
    made = place.create()
    try:
        yield made
    finally:
        made.kill()
        made.close()


# --- Create to the first byte of the first command -------------------------------------------------------------------


def first_byte(place: Place) -> float:
    """Seconds from the call of `create` until the first output of the first command."""
    came: list[float] = []
    begun = time.perf_counter()
    with sandbox(place) as made:
        handlers = ExecutionHandlersSync(on_stdout=lambda _: came.append(time.perf_counter()))
        made.commands.run("echo up", handlers=handlers)
        return came[0] - begun


def one_by_one(place: Place, runs: int, pause: float = 0.0) -> list[float]:
    """Seconds of each, one after another."""
    taken = []
    for _ in range(runs):
        taken.append(first_byte(place))
        time.sleep(pause)
    return taken


@dataclass(frozen=True)
class Share:
    """The creates of one client process: what `Place.options` and `Sandbox.create` take, and when each begins."""

    options: dict[str, Any]
    image: str
    extensions: dict[str, str]
    begins: list[float]
    """Seconds of `time.monotonic`."""


async def _first_byte(share: Share, config: ConnectionConfig, begin: float) -> tuple[float, float]:
    """When it began, and when the first output came."""
    await asyncio.sleep(begin - time.monotonic())
    came: list[float] = []

    async def heard(_: OutputMessage) -> None:
        came.append(time.monotonic())

    begun = time.monotonic()
    made = await Sandbox.create(
        share.image, timeout=HOUR, ready_timeout=HOUR, extensions=share.extensions, connection_config=config
    )
    try:
        await made.commands.run("echo up", handlers=ExecutionHandlers(on_stdout=heard))
    finally:
        await made.kill()
        await made.close()
    return begun, came[0]


def _first_bytes(share: Share) -> list[tuple[float, float]]:
    """Run in a process of its own."""

    async def all_of_them() -> list[tuple[float, float]]:
        async with httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=None)) as transport:
            config = ConnectionConfig(**share.options, transport=transport)
            return await asyncio.gather(*(_first_byte(share, config, begin) for begin in share.begins))

    return asyncio.run(all_of_them())


def side_by_side(place: Place, count: int, interval: float, processes: int = 1) -> tuple[float, float]:
    """`count` creates, one every `interval` seconds: their median, and how many a second came to output.

    `processes` share them: one alone takes longer for a hundred at once than they do.
    """
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * processes))  # each has started, with this module imported
        begin = time.monotonic() + 0.5
        begins = [begin + number * interval for number in range(count)]
        shares = [Share(place.options, place.image, place.extensions, begins[i::processes]) for i in range(processes)]
        found = [pair for pairs in pool.map(_first_bytes, shares) for pair in pairs]
    took = max(came for _, came in found) - min(begun for begun, _ in found)
    return statistics.median(came - begun for begun, came in found), count / took


# --- Commands and files ----------------------------------------------------------------------------------------------


def echoes(made: SandboxSync, runs: int) -> list[float]:
    """Seconds of each ``run("echo")``."""
    taken = []
    for _ in range(runs):
        begun = time.perf_counter()
        done = made.commands.run("echo hello")
        taken.append(time.perf_counter() - begun)
        if done.logs.stdout[0].text.strip() != "hello":
            raise RuntimeError(done)
    return taken


def echoes_side_by_side(made: SandboxSync, seconds: float, width: int = 16) -> float:
    """Commands a second, `width` at once in one sandbox."""
    end = time.perf_counter() + seconds

    def worker(_: int) -> int:
        count = 0
        while time.perf_counter() < end:
            made.commands.run("echo hello")
            count += 1
        return count

    begun = time.perf_counter()
    with ThreadPoolExecutor(width) as pool:
        return sum(pool.map(worker, range(width))) / (time.perf_counter() - begun)


def written(made: SandboxSync, runs: int) -> list[float]:
    """Seconds of each write of 1 MB."""
    return [_timed(lambda: made.files.write_file("/tmp/megabyte", MEGABYTE)) for _ in range(runs)]


def read(made: SandboxSync, runs: int) -> list[float]:
    """Seconds of each read of 1 MB."""
    if made.files.read_bytes("/tmp/megabyte") != MEGABYTE:
        raise RuntimeError("another content")
    return [_timed(lambda: made.files.read_bytes("/tmp/megabyte")) for _ in range(runs)]


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
