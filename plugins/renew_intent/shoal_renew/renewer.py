"""From a signal to a renewal, through the gates of docs/wire/api.md section 17, in its order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import structlog

from shoal.errors import ShoalError
from shoal.models.sandbox import State
from shoal.plugin import Lifecycle
from shoal_renew.intent import Signal
from shoal_renew.subjects import Subject, Subjects

log = structlog.get_logger("shoal.renew")

RETRY_SECONDS = 5.0
"""Cool-down after a renewal that failed or was held up, so that traffic does not turn into failures."""
SLACK_SECONDS = 0.05
"""How early a signal may come. A gateway counts the same interval between its intents as the cool-down lasts."""
LASTING = frozenset({"no_expiry", "unchanged"})
"""Reasons that hold as long as a renewal would: the whole cool-down applies."""
LIMIT_SECONDS = 25.0
"""Longest wait for one renewal; it goes on, but its outcome is not waited for. Below `LOCK_SECONDS`."""
LOCK_SECONDS = 30
"""Life of the lock across replicas, should its holder die: longer than one renewal."""


def utcnow() -> datetime:
    """The present time, with its zone."""
    return datetime.now(UTC)


class Replicas(Protocol):
    """Keeps other replicas from renewing the same sandbox; never raises."""

    async def take(self, sandbox_id: str, seconds: int) -> bool:
        """The lock, for that long; False if another replica has it. Without a connection everybody gets it."""
        ...

    async def hold(self, sandbox_id: str, seconds: int) -> None:
        """Keep it for ``seconds`` from now, if it is still this replica's; 0 lets it go."""
        ...


class Alone(Replicas):
    """There are no other replicas that one could know of."""

    async def take(self, sandbox_id: str, seconds: int) -> bool:
        return True

    async def hold(self, sandbox_id: str, seconds: int) -> None:
        return


class Renewer:
    """Renews each sandbox by one signal at a time, and at most once in ``min_interval`` seconds, whoever signals.

    The cool-down counts from the access to the next access, not from the end of the renewal: what a gateway sends once
    in ``min_interval`` seconds would otherwise come a moment too early each second time.

    A signal that comes while its sandbox is being renewed does not wait for its turn, in which the cool-down would meet
    it anyway: it would keep its worker from other sandboxes.

    Args:
        clock: monotonic seconds, for the cool-down.
        now: for expiries and the age of signals.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        subjects: Subjects,
        min_interval: int,
        replicas: Replicas | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._lifecycle = lifecycle
        self._subjects = subjects
        self._interval = min_interval
        self._replicas = replicas or Alone()
        self.clock = clock
        self.now = now

    async def handle(self, signal: Signal) -> None:
        """Renew, or log why not. Never raises: a failure is logged and not tried again before the next signal."""
        if signal.stale(self.now()):
            return skipped(signal, "stale")
        subject = self._subjects.get(signal.sandbox_id)
        if subject is None:
            known = self._lifecycle.find(signal.sandbox_id) is not None
            return skipped(signal, "not_opted_in" if known else "unknown_sandbox")
        if subject.busy:
            return skipped(signal, "in_progress")
        subject.busy = True
        try:
            await self._pass(signal, subject)
        except Exception as error:
            self._cool(subject, RETRY_SECONDS)
            _failed(signal, error)
        finally:
            subject.busy = False

    async def _pass(self, signal: Signal, subject: Subject) -> None:
        """The gates of a sandbox that nobody else is renewing."""
        begun = self.clock() - signal.age(self.now())
        if begun < subject.next_at - SLACK_SECONDS:
            return skipped(signal, "cool_down")
        reason = self._out_of_question(signal, subject)
        if reason is not None:
            if reason in LASTING:
                subject.next_at = begun + self._interval
            elif reason != "stale":
                self._cool(subject, RETRY_SECONDS)
            return skipped(signal, reason)
        if not await self._replicas.take(signal.sandbox_id, LOCK_SECONDS):
            self._cool(subject, RETRY_SECONDS)
            return skipped(signal, "locked_by_replica")
        kept = 0
        try:
            reason = self._out_of_question(signal, subject)  # the lock may have taken its time
            if reason is not None:
                return skipped(signal, reason)
            await self._renew(signal, subject.extend)
            subject.next_at = begun + self._interval
            kept = max(1, round(subject.next_at - self.clock()))
        finally:
            await self._replicas.hold(signal.sandbox_id, kept)

    def _out_of_question(self, signal: Signal, subject: Subject) -> str | None:
        """Why the sandbox must not be renewed, as of now; None if it may be."""
        if signal.stale(self.now()):
            return "stale"
        record = self._lifecycle.find(signal.sandbox_id)
        if record is None:
            return "unknown_sandbox"
        if record.state is not State.RUNNING:
            return "not_running"
        if record.expires_at is None:
            return "no_expiry"
        return "unchanged" if self.now() + subject.extend <= record.expires_at else None

    def _cool(self, subject: Subject, seconds: float) -> None:
        subject.next_at = self.clock() + min(seconds, self._interval)

    async def _renew(self, signal: Signal, extend: timedelta) -> None:
        wanted = self.now() + extend
        async with asyncio.timeout(LIMIT_SECONDS):
            expires_at = await self._lifecycle.renew(signal.sandbox_id, wanted, only_later=True)
        _event(log.info, "renew_succeeded", signal, renew_expires_at=expires_at.isoformat())


def skipped(signal: Signal, reason: str) -> None:
    """Log a signal that led to nothing."""
    _event(log.debug, "renew_skipped", signal, renew_skip_reason=reason)


def _failed(signal: Signal, error: Exception) -> None:
    if isinstance(error, ShoalError):
        _event(log.warning, "renew_failed", signal, renew_error=str(error))
    elif isinstance(error, TimeoutError):
        _event(log.warning, "renew_failed", signal, renew_error=f"not done within {LIMIT_SECONDS:g} s")
    else:
        _event(log.exception, "renew_failed", signal, renew_error=type(error).__name__)


def _event(write: Callable[..., Any], event: str, signal: Signal, **more: str) -> None:
    """One line with the fields of docs/wire/api.md section 17."""
    fields = {"renew_event": event, "renew_source": signal.source, "renew_sandbox_id": signal.sandbox_id[:64], **more}
    write("renewal on access", **fields)
