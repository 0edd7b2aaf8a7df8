"""The first moments of a sandbox's agent: who wants to reach it waits until it listens, bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from shoal.errors import ShoalError
from shoal.lifecycle.dialling import dial
from shoal.lifecycle.hosts import Hosts
from shoal.lifecycle.ledger import utcnow
from shoal.models.sandbox import State
from shoal.models.workload import Tunnel
from shoal.plugin.interfaces import Runtime
from shoal.view.entry import Entry
from shoal.view.index import View

MIN_ASK_INTERVAL: Final = 0.005
MAX_ASK_INTERVAL: Final = 0.1
ASK_SHARE: Final = 0.1
"""The pause between two tries, as a share of what the wait has taken so far: so much later it may be noticed."""
TRY_SECONDS: Final = 1.0


class AgentStarts:
    """Which agents have answered, of sandboxes that have run for less than ``wait`` seconds.

    Args:
        wait: how long after a sandbox's start its agent may take; 0 waits for none.
    """

    def __init__(self, view: View, hosts: Hosts, wait: float) -> None:
        self._view = view
        self._hosts = hosts
        self._wait = wait
        self._answered: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def settled(self, entry: Entry) -> bool:
        """Whether there is nothing to wait for: the agent has answered, or had its time, or is nobody's concern."""
        return not self.expected(entry) or (utcnow() - entry.record.since).total_seconds() >= self._wait

    def expected(self, entry: Entry) -> bool:
        """Whether the sandbox runs and has an agent that has not answered yet."""
        record = entry.record
        if record.id in self._answered or record.state is not State.RUNNING:
            return False
        return self._hosts.of(record).runtime.agent_starts

    async def settle(self, entry: Entry, address: str | Tunnel) -> None:
        """Return once it is settled.

        Args:
            address: ``host:port[/prefix]`` of the agent, or the tunnel to it.
        """
        asking = self.begin(entry, address)
        if asking is not None:
            await asyncio.shield(asking)  # one waiter that leaves does not end it for the others

    def begin(self, entry: Entry, address: str | Tunnel) -> asyncio.Task[None] | None:
        """Ask until it is settled, once for all who want to know; returns at once, None if it is settled.

        Args:
            address: as for `settle`.
        """
        sandbox_id = entry.record.id
        now = self._view.get(sandbox_id)
        if now is None or self.settled(now):
            return None
        task = self._asking.get(sandbox_id)
        if task is None:
            task = self._asking[sandbox_id] = asyncio.create_task(self._ask(entry, address, self.settled))
            task.add_done_callback(lambda _: self._asking.pop(sandbox_id, None))
        return task

    async def start(self, entry: Entry, address: str | Tunnel) -> None:
        """Return once the agent answers, is nobody's concern any more, or ``wait`` seconds have passed from now.

        Args:
            address: as for `settle`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                await self._ask(entry, address, lambda now: not self.expected(now))

    async def _ask(self, entry: Entry, address: str | Tunnel, over: Callable[[Entry], bool]) -> None:
        """Ask until the agent answers, or its wait is over."""
        sandbox_id, clock = entry.record.id, asyncio.get_running_loop().time
        runtime, begun = self._hosts.of(entry.record).runtime, clock()
        while not await answers(address, runtime):
            await asyncio.sleep(pause_after(clock() - begun))
            now = self._view.get(sandbox_id)
            if now is None or over(now):
                return
        self._note(sandbox_id)

    def _note(self, sandbox_id: str) -> None:
        """Remember it for as long as anybody would wait, and forget the others that nobody waits for any more."""
        now = asyncio.get_running_loop().time()
        self._answered = {each: at for each, at in self._answered.items() if now - at < self._wait}
        self._answered[sandbox_id] = now


def pause_after(waited: float) -> float:
    """Seconds until the next try, ``waited`` seconds after the first."""
    return min(max(waited * ASK_SHARE, MIN_ASK_INTERVAL), MAX_ASK_INTERVAL)


async def answers(address: str | Tunnel, runtime: Runtime) -> bool:
    """Whether something speaks HTTP there. A connection alone proves nothing: a forwarded port takes it in any case."""
    text = address if isinstance(address, str) else f"127.0.0.1:{address.port}"
    authority, _, prefix = text.partition("/")
    path = f"/{prefix}/ping" if prefix else "/ping"
    try:
        async with asyncio.timeout(TRY_SECONDS):
            reader, writer = await _open(address if isinstance(address, Tunnel) else authority, runtime)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError, ShoalError):  # TimeoutError is an OSError
        return False


async def _open(place: str | Tunnel, runtime: Runtime) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(place, str):
        host, _, port = place.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))
    sock = await dial(runtime, place)
    try:
        return await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
