"""Redis: the list that gateways write their intents to, and the lock across replicas.

It may be absent at the start, go away and come back. While it is away the list is not read, everybody gets the lock,
and one task tries to reach it again, for ever, with back-off and jitter. Nothing here is on a request's path.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from shoal.errors import ConfigError
from shoal.kit import Backoff
from shoal_renew.config import RedisSettings
from shoal_renew.ending import end

log = structlog.get_logger("shoal.renew")

BLOCK_SECONDS = 5
"""How long one BRPOP waits at the server."""
ANSWER_TIMEOUT = 5.0
"""Longest wait for a connection, and for an answer beyond what was asked to block; then Redis counts as away."""
LOCK_TIMEOUT = 2.0
"""Longest wait for an answer about a lock."""
LOCK_RETRY_SECONDS = 15.0
"""After Redis failed over a lock, it is not asked again for so long."""
BACKOFF: Final = Backoff(0.2, 15.0, jitter=0.5)
"""Seconds between two tries to reach it: doubled from the first to the most, each cut by up to a half at random."""
LOCK_KEY = "opensandbox:renew:lock:{}"

MIN_LOCK_SECONDS = 0.1
"""For which a lock that is kept is kept."""
_HOLD = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('del', KEYS[1]) end
return redis.call('pexpire', KEYS[1], ARGV[2])
"""
"""Compare and set in one step, for the lock may have run out and be another's."""


class IntentList:
    """Follows the list with ``consumer_concurrency`` consumers.

    Args:
        handle: called with each payload that was popped, one at a time for each consumer; must not raise.

    Raises ConfigError for a DSN that is no Redis URL.
    """

    def __init__(self, settings: RedisSettings, handle: Callable[[bytes], Awaitable[None]]) -> None:
        self._settings = settings
        self._handle = handle
        self._list = _client(settings, BLOCK_SECONDS + ANSWER_TIMEOUT, tries=1)
        self._up, self._down = asyncio.Event(), asyncio.Event()
        self._failures = 0
        self._told = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> bool:
        """Whether Redis answered the last time it was asked."""
        return self._up.is_set()

    async def start(self) -> None:
        """Begin; returns at once, whether there is a Redis or not."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._supervise(), name="renew intents: connection")]
        for number in range(self._settings.consumer_concurrency):
            self._tasks.append(loop.create_task(self._consume(), name=f"renew intents: consumer {number}"))

    async def stop(self) -> None:
        """End. An intent that was popped just now is lost, as in opensandbox-server."""
        await end(self._tasks)
        await self._list.aclose()

    async def _supervise(self) -> None:
        while True:
            await self._connect()
            self._down.clear()
            self._up.set()
            await self._down.wait()

    async def _connect(self) -> None:
        while True:
            if self._failures:
                await asyncio.sleep(BACKOFF.after(self._failures))
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT):
                    await self._list.ping()
            except Exception as error:
                self._note(error)
            else:
                self._told = False
                log.info("redis connected", renew_event="redis_connected", renew_source="redis_queue")
                return

    def _note(self, error: Exception) -> None:
        """One more failure in a row; the first is logged. Errors of Redis name a host and port, and no credentials."""
        self._failures += 1
        if not self._told:
            self._told = True
            why = f"{type(error).__name__}: {error}"
            log.warning("redis is away", renew_event="redis_lost", renew_source="redis_queue", renew_error=why)

    def _lost(self, error: Exception) -> None:
        if self._up.is_set():
            self._up.clear()
            self._down.set()
            self._note(error)

    async def _consume(self) -> None:
        while True:
            await self._up.wait()
            try:
                popped = await cast("Awaitable[Any]", self._list.brpop([self._settings.queue_key], BLOCK_SECONDS))
            except Exception as error:
                self._lost(error)
                continue
            self._failures = 0
            if popped is not None:
                await self._handle(popped[1])


class ReplicaLocks:
    """`shoal_renew.renewer.Replicas` over Redis: ``SET opensandbox:renew:lock:{id} … NX EX``."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client = _client(settings, LOCK_TIMEOUT, tries=2)  # the first may meet a dead connection
        self._me = uuid.uuid4().hex
        self._away_until = float("-inf")

    async def take(self, sandbox_id: str, seconds: int) -> bool:
        """True also while Redis is away: better two renewals than none."""
        return await self._ask(lambda key: self._take(key, seconds), sandbox_id)

    async def hold(self, sandbox_id: str, seconds: int) -> None:
        """Keep or let go; a lock that cannot be reached runs out by itself.

        It ends a second early: the seconds are whole ones, and who comes at their end must not meet it.
        """
        await self._ask(lambda key: self._hold(key, max(seconds - 1, MIN_LOCK_SECONDS) if seconds else 0), sandbox_id)

    async def start(self) -> None:
        """Open nothing: a connection is opened when the first lock is taken."""

    async def stop(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self, ask: Callable[[str], Awaitable[bool]], sandbox_id: str) -> bool:
        """What Redis says about the lock; True if it is away."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            return True
        try:
            async with asyncio.timeout(2 * LOCK_TIMEOUT):
                return await ask(LOCK_KEY.format(sandbox_id))
        except Exception as error:
            self._away_until = loop.time() + LOCK_RETRY_SECONDS
            log.debug("no renewal lock", renew_event="lock_unavailable", renew_error=type(error).__name__)
            return True

    async def _take(self, key: str, seconds: int) -> bool:
        taken = await self._client.set(key, self._me, nx=True, ex=seconds)
        return bool(taken) or await self._hold(key, seconds)  # this replica's own, from the renewal before

    async def _hold(self, key: str, seconds: float) -> bool:
        milliseconds = str(round(seconds * 1000))
        return bool(await cast("Awaitable[int]", self._client.eval(_HOLD, 1, key, self._me, milliseconds)))


def _client(settings: RedisSettings, patience: float, tries: int) -> redis.asyncio.Redis:
    """A client that opens no connection before it is used, and waits ``patience`` seconds for an answer."""
    dsn = settings.dsn.reveal().strip() if settings.dsn else ""
    try:
        return redis.asyncio.Redis.from_url(
            dsn, socket_connect_timeout=ANSWER_TIMEOUT, socket_timeout=patience, retry=Retry(NoBackoff(), tries - 1)
        )
    except (ValueError, TypeError):
        raise ConfigError("renew_intent.redis.dsn: not a Redis URL") from None
