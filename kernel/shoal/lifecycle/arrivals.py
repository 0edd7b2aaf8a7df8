"""Runtimes that come up: each is opened, listed and compared by itself, so that none holds up or ends the others.

One that raises, or does not answer in time, is away: its sandboxes are shown as Unknown, operations on them are refused
with 503, and it is tried again until it answers. Then its sandboxes are compared and taken up as at a start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from shoal.errors import ConfigError
from shoal.kit.backoff import Backoff
from shoal.lifecycle.reconcile import Reconciler
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.calls import ComponentFailure
from shoal.plugin.interfaces import Runtime
from shoal.view.entry import Entry
from shoal.view.index import View

log = structlog.get_logger("shoal.lifecycle")

START_TIMEOUT: Final = 10.0
"""How long a start waits for the other runtimes once one is up."""
BACKOFF_FIRST: Final = 0.5
BACKOFF_MAX: Final = 15.0
"""Seconds between two tries of a runtime that is away."""
STARTING: Final = "it is being started"
COULD_NOT_START: Final = "it could not be started, and the log of the server says why"

Open = Callable[[Runtime], Awaitable[None]]


class Arrivals:
    """The runtimes of one server until each has answered for the first time.

    Args:
        take_up: continues what the last process was doing with a sandbox.
    """

    def __init__(self, reconcilers: Sequence[Reconciler], view: View, take_up: Callable[[SandboxRecord], None]) -> None:
        self._reconcilers = reconcilers
        self._view = view
        self._take_up = take_up
        self._opened: set[str] = set()
        self._tries: dict[Reconciler, asyncio.Task[Exception | None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def first(self, open_: Open) -> None:
        """Try all of them, side by side; once one is up, the others have `START_TIMEOUT` to be up from the start.

        Raises ConfigError if one must not be used as configured and no other one is up, and what the store raises.
        """
        loop = asyncio.get_running_loop()
        patient_until = loop.time() + START_TIMEOUT
        for reconciler in self._reconcilers:
            reconciler.host.away = STARTING
            name = f"start {reconciler.host.part.key}"
            self._tries[reconciler] = loop.create_task(self._try(reconciler, open_), name=name)
        waiting = set(self._tries.values())
        while waiting:
            left = max(0.0, patient_until - loop.time()) if None in self._outcomes() else None
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        wrong = [str(outcome) for outcome in self._outcomes() if isinstance(outcome, ConfigError)]
        if wrong and None not in self._outcomes():
            raise ConfigError("\n".join(wrong))

    def follow(self, open_: Open) -> None:
        """Follow those that are up, and go on trying the others."""
        for reconciler, first in self._tries.items():
            if first.done() and first.result() is None:
                reconciler.start()
            else:
                later = self._later(reconciler, open_, first)
                self._tasks.append(asyncio.get_running_loop().create_task(later, name=first.get_name()))

    async def stop(self) -> None:
        """Try nothing again."""
        tasks = [*self._tasks, *self._tries.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _outcomes(self) -> list[Exception | None]:
        """Of the first tries that are over. Raises what the store raised in one."""
        return [each.result() for each in self._tries.values() if each.done()]

    async def _later(self, reconciler: Reconciler, open_: Open, first: asyncio.Task[Exception | None]) -> None:
        """Try until it answers; then follow it, and take its sandboxes up."""
        backoff, host = Backoff(BACKOFF_FIRST, BACKOFF_MAX), reconciler.host
        try:
            away = await first
            while away is not None:
                await asyncio.sleep(backoff.next())
                away = await self._try(reconciler, open_)
        except Exception as error:  # the store's: the runtime is up, and what differs is judged again
            log.warning("a runtime answers, and could not be compared", plugin=host.part.plugin, error=str(error))
        log.info("a runtime answers after all", plugin=host.part.plugin, runtime=host.runtime.name)
        reconciler.start()
        for entry in sorted(self._of(reconciler), key=lambda entry: entry.record.created_at):
            self._take_up(entry.record)

    async def _try(self, reconciler: Reconciler, open_: Open) -> Exception | None:
        """Open, list and compare one; None if it answers, else why not. Raises what the store raises."""
        host = reconciler.host
        try:
            if host.part.key not in self._opened:
                await open_(host.runtime)
                self._opened.add(host.part.key)
            await reconciler.compare(lambda: self._present(reconciler))
        except (ComponentFailure, ConfigError) as error:
            reason = error.reason if isinstance(error, ComponentFailure) else COULD_NOT_START
            if host.away != reason:
                log.error("a runtime does not answer, and is tried again", plugin=host.part.plugin, error=str(error))
            self._away(reconciler, reason)
            return error
        return None

    def _present(self, reconciler: Reconciler) -> None:
        """It was listed: its records count again, before they are judged."""
        reconciler.host.away = None
        for entry in self._of(reconciler):
            if entry.doubt is not None:
                self._view.put(Entry(entry.record, entry.workload))

    def _away(self, reconciler: Reconciler, reason: str) -> None:
        reconciler.host.away = reason
        for entry in self._of(reconciler):
            self._view.put(Entry(entry.record, entry.workload, reconciler.host.doubt()))

    def _of(self, reconciler: Reconciler) -> list[Entry]:
        return [entry for entry in self._view if entry.record.runtime == reconciler.host.runtime.name]
