"""The writer: one thread that owns the connection and commits the calls of many callers together.

Durability costs one ``fsync`` a commit, so calls that arrive while a commit is under way wait for the next one and
share it. Each call runs within a savepoint of the shared transaction: one that fails takes back its own statements and
nobody else's. A caller is answered after the commit that holds its call, never before. Calls are carried out in the
order in which they were made.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import structlog

from shoal_sqlite.failures import closed, translated

log = structlog.get_logger("shoal.sqlite")

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
"""One caller's statements. May be called twice if SQLite takes back the transaction that held the first call."""

MAX_PENDING = 512
"""Calls that are queued or being committed; further callers wait, so neither queue nor transaction grows freely."""


class Owned(Protocol):
    """An open database, used and closed by the writer's thread alone."""

    @property
    def connection(self) -> sqlite3.Connection: ...

    def tend(self) -> None: ...

    def close(self) -> None: ...


class _Call:
    """One call on its way through the thread; ``result`` and ``error`` are set there and read on the loop."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: Work[Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():  # its caller was cancelled
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(translated(self.error))


class _TransactionLost(Exception):
    """SQLite took back the whole transaction, not only the statement that failed (https://sqlite.org/lang_transaction.html)."""


class Writer:
    """The thread, its queue, and the way in for coroutines of one event loop.

    Args:
        open_database: called on the thread; raises ConfigError if the database cannot be used.
    """

    def __init__(self, open_database: Callable[[], Owned]) -> None:
        self._open_database = open_database
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._permits = asyncio.Semaphore(MAX_PENDING)
        self._thread: threading.Thread | None = None
        self._accepting = False

    async def start(self) -> None:
        """Start the thread and wait until it has opened the database. Raises what ``open_database`` raises."""
        loop = asyncio.get_running_loop()
        self._queue = queue.SimpleQueue()
        opened: asyncio.Future[None] = loop.create_future()
        # A daemon, so that a process that never calls `stop` can end; to the file that is a crash like any other.
        self._thread = threading.Thread(target=self._serve, args=(loop, opened), name="shoal-store", daemon=True)
        self._thread.start()
        await opened
        self._accepting = True

    async def stop(self) -> None:
        """Commit what was accepted, then close the database. Does nothing if it is not open."""
        thread, self._thread = self._thread, None
        self._accepting = False
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)

    async def run(self, work: Work[T]) -> T:
        """What ``work`` returns, once everything it wrote is durable.

        A caller that is cancelled while it waits does not undo its call: that may be durable or not, as with a crash.
        Raises ShoalError if the store cannot do it, and then nothing of it is kept; an exception of ``work`` itself as
        it is.
        """
        await self._permits.acquire()
        if not self._accepting:
            self._permits.release()
            raise closed()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put(_Call(work, future))
        return await future

    # --- On the thread ---------------------------------------------------------------------------------------------

    def _serve(self, loop: asyncio.AbstractEventLoop, opened: asyncio.Future[None]) -> None:
        try:
            database = self._open_database()
        except Exception as error:
            _on_loop(loop, _resolve, opened, error)
            return
        try:
            _on_loop(loop, _resolve, opened, None)
            while batch := self._next_batch():
                _commit(database.connection, batch)
                _on_loop(loop, self._settle, batch)
                database.tend()
        finally:
            database.close()

    def _next_batch(self) -> list[_Call]:
        """Everything that waits now, at least one call; empty when it is time to stop."""
        batch: list[_Call] = []
        call = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while call is not None:
                batch.append(call)
                call = self._queue.get_nowait()
        if call is None and batch:
            self._queue.put(None)  # stop after this batch
        return batch

    # --- Back on the loop ------------------------------------------------------------------------------------------

    def _settle(self, batch: Sequence[_Call]) -> None:
        for call in batch:
            self._permits.release()
            call.settle()


def _commit(connection: sqlite3.Connection, batch: Sequence[_Call]) -> None:
    """Carry out ``batch`` in one transaction; afterwards each call has its result or its error."""
    try:
        _begin(connection)
        for call in batch:
            _attempt(connection, call)
        connection.execute("COMMIT")
    except _TransactionLost as lost:
        if len(batch) == 1:
            _fail(batch, lost.__cause__)
            return
        for call in batch:  # one at a time, so that only those that cannot be kept fail
            _commit(connection, [call])
    except Exception as error:
        _fail(batch, error)
        with contextlib.suppress(sqlite3.Error):  # `_begin` tries again
            _roll_back(connection)


def _attempt(connection: sqlite3.Connection, call: _Call) -> None:
    call.error = None
    connection.execute("SAVEPOINT call")
    try:
        call.result = call.work(connection)
    except Exception as error:
        if not connection.in_transaction:
            raise _TransactionLost from error
        connection.execute("ROLLBACK TO call")
        call.error = error
    connection.execute("RELEASE call")


def _begin(connection: sqlite3.Connection) -> None:
    _roll_back(connection)
    connection.execute("BEGIN IMMEDIATE")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _fail(batch: Sequence[_Call], error: BaseException | None) -> None:
    cause = error if isinstance(error, Exception) else RuntimeError("the transaction was lost")
    log.error("store commit failed", error=str(cause), calls=len(batch))
    for call in batch:
        call.error = cause


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
        loop.call_soon_threadsafe(callback, *args)
