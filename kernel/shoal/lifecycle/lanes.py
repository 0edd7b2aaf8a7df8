"""One writer per sandbox: a lane runs the jobs of one sandbox one after another, in the order they came.

A lane is born with its first job and gone with its last. A job is its own task, in the caller's context (so that its
log lines carry the request id), and goes on when the caller is cancelled: an operation that was begun is finished.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

import structlog

from shoal.errors import InternalError, ShoalError, Unavailable
from shoal.models import codes

T = TypeVar("T")
_Job = tuple[Callable[[], Coroutine[Any, Any, Any]], "asyncio.Future[Any]", contextvars.Context]
log = structlog.get_logger("shoal.lifecycle")

LAST_SECONDS = 1.0
"""How long `end_tasks` waits for a task that it has cancelled; one that will not end is left behind."""


class Lanes:
    """The lanes of all sandboxes."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Job]] = {}
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._closed = False

    def busy(self, sandbox_id: str) -> bool:
        """Whether a job of this sandbox is running or waiting."""
        return sandbox_id in self._running

    def post(self, sandbox_id: str, job: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        """Queue a job that nobody needs to await; its failure is logged. Returns the future of its result."""

        async def logged() -> T:
            try:
                return await job()
            except ShoalError as error:
                log.warning("background work on a sandbox failed", sandbox_id=sandbox_id, error=str(error))
                raise
            except Exception:
                log.exception("background work on a sandbox failed", sandbox_id=sandbox_id)
                raise

        return self._queue(sandbox_id, logged)

    async def run(self, sandbox_id: str, job: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Queue a job and wait for its result. Cancelling the caller leaves the job to finish.

        Raises what the job raises, and Unavailable if the lanes close before it is done.
        """
        return await asyncio.shield(self._queue(sandbox_id, job))

    async def close(self, grace: float) -> None:
        """Take no more jobs, drop what is waiting, give what is running ``grace`` seconds, then cancel it.

        What is cut off here is durable as an intent, and finished at the next start.
        """
        self._closed = True
        for sandbox_id in list(self._waiting):
            for _, future, _ in self._waiting.pop(sandbox_id):
                _fail(future, _stopping())
        await end_tasks(self._running.values(), grace)

    def _queue(self, sandbox_id: str, job: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        entry = (job, future, contextvars.copy_context())
        if self._closed:
            _fail(future, _stopping())
        elif sandbox_id in self._running:
            self._waiting.setdefault(sandbox_id, deque()).append(entry)
        else:
            self._start(sandbox_id, entry)
        return future

    def _start(self, sandbox_id: str, entry: _Job) -> None:
        job, future, context = entry
        task = asyncio.get_running_loop().create_task(_without_exit(job), context=context)
        self._running[sandbox_id] = task
        task.add_done_callback(lambda done: self._finish(sandbox_id, done, future))

    def _finish(self, sandbox_id: str, task: asyncio.Task[Any], future: asyncio.Future[Any]) -> None:
        del self._running[sandbox_id]
        queue = self._waiting.get(sandbox_id)
        if queue:
            entry = queue.popleft()
            if not queue:
                del self._waiting[sandbox_id]
            self._start(sandbox_id, entry)
        if task.cancelled():
            _fail(future, _stopping())
        elif (error := task.exception()) is not None:
            _fail(future, error)
        elif not future.done():
            future.set_result(task.result())


async def _without_exit(job: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the job returns or raises; SystemExit, which would end the event loop, as InternalError."""
    try:
        return await job()
    except SystemExit as error:
        log.exception("a plugin tried to end the server")
        raise InternalError(codes.INTERNAL_ERROR, "A plugin tried to end the server.") from error


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # marks it as looked at: a posted job has no one who awaits it


def _stopping() -> Unavailable:
    """Not CancelledError: the caller's own task was not cancelled, and has an answer to give."""
    return Unavailable(codes.SERVER_STOPPING, "The server is stopping; the operation may have to be repeated.")


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], grace: float) -> None:
    """Give tasks ``grace`` seconds to end, then cancel what is left."""
    running = list(tasks)
    if not running:
        return
    _, late = await asyncio.wait(running, timeout=grace)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=LAST_SECONDS)
