"""`RenewIntent`: the proxy's signals and the gateway's, through one set of gates."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Protocol

import structlog

from shoal.plugin import Lifecycle
from shoal.plugin.interfaces import Access, Observer, Renewal, Transition
from shoal_renew.ending import end
from shoal_renew.intent import Signal, parse
from shoal_renew.renewer import RETRY_SECONDS, SLACK_SECONDS, Renewer
from shoal_renew.subjects import EXTENSION, Subjects

log = structlog.get_logger("shoal.renew")

QUEUE_LIMIT = 10_000
"""Signals of the proxy that may wait, one a sandbox; more are dropped."""


class Service(Protocol):
    """Something that is opened and closed with the plugin."""

    async def start(self) -> None:
        """Open it."""
        ...

    async def stop(self) -> None:
        """Close it."""
        ...


class RenewIntent(Renewal, Observer):
    """Renews sandboxes that opted in, when they are accessed.

    Args:
        workers: signals of the proxy that are handled side by side.
    """

    name: ClassVar[str] = "renew-intent"
    extensions = frozenset({EXTENSION})

    def __init__(self, lifecycle: Lifecycle, subjects: Subjects, renewer: Renewer, workers: int) -> None:
        self._lifecycle = lifecycle
        self._subjects = subjects
        self._renewer = renewer
        self._workers = workers
        self._queue: asyncio.Queue[Signal] = asyncio.Queue(QUEUE_LIMIT)
        self._tasks: list[asyncio.Task[None]] = []
        self.services: list[Service] = []
        """Sources beside the proxy, and what they need."""

    async def start(self) -> None:
        """Take up the sandboxes that are there, and begin. Redis is not waited for."""
        for record in self._lifecycle.records():
            self._subjects.follow(record)
        loop = asyncio.get_running_loop()
        for number in range(self._workers):
            self._tasks.append(loop.create_task(self._work(), name=f"renew signals: worker {number}"))
        for service in self.services:
            await service.start()
        log.info("renewal on access", renew_event="workers_started", renew_workers=self._workers)

    async def stop(self) -> None:
        """End; a renewal that was begun goes on without being waited for."""
        await end(self._tasks)
        for service in reversed(self.services):
            await service.stop()

    def transition(self, event: Transition) -> None:
        """Follow who has opted in."""
        if event.after is None:
            self._subjects.forget(event.record.id)
        else:
            self._subjects.follow(event.record)

    def accessed(self, access: Access) -> None:
        """The proxy's signal: at most one waits for each sandbox, and none within its cool-down."""
        subject = self._subjects.get(access.sandbox_id)
        if subject is None or subject.queued or subject.busy or access.transport == "gateway":
            return
        now = self._renewer.clock()
        if now < subject.next_at - SLACK_SECONDS:
            return
        try:
            self._queue.put_nowait(Signal(access.sandbox_id, "server_proxy"))
        except asyncio.QueueFull:
            subject.next_at = now + RETRY_SECONDS
        else:
            subject.queued = True

    async def intent(self, payload: bytes) -> None:
        """The gateway's signal, which is also news for whoever else counts accesses."""
        signal = parse(payload)
        if signal is None or signal.observed_at is None:
            log.debug(
                "renewal on access",
                renew_event="renew_skipped",
                renew_source="redis_queue",
                renew_skip_reason="malformed",
            )
            return
        if not signal.stale(self._renewer.now()) and self._lifecycle.find(signal.sandbox_id) is not None:
            self._lifecycle.accessed(Access(signal.sandbox_id, signal.port, "gateway", signal.observed_at))
        await self._renewer.handle(signal)

    async def _work(self) -> None:
        while True:
            signal = await self._queue.get()
            subject = self._subjects.get(signal.sandbox_id)
            if subject is not None:
                subject.queued = False
            await self._renewer.handle(signal)
