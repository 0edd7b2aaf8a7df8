"""Blocking calls of an engine's SDK, off the event loop and on a bounded number of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class BoundedThreads:
    """So many calls at once; more wait, first come first served.

    Args:
        threads: how many.
        name: prefix of the threads' names.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` returns or raises.

        A caller that is cancelled leaves when the call has ended, or at once if it has not begun: nothing of it can
        show up later. Raises RuntimeError after `close`.
        """
        return await finish(self.submit(work, *args, **kwargs))

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin the call and return its future. Raises RuntimeError after `close`."""
        return self._executor.submit(work, *args, **kwargs)

    async def close(self) -> None:
        """Take no more calls, and return when those under way have ended."""
        await asyncio.to_thread(self._executor.shutdown)

    def abandon(self) -> None:
        """Take no more calls, and do not wait for those under way."""
        self._executor.shutdown(wait=False)


async def finish(job: Future[T]) -> T:
    """The result of a thread's call. A caller that is cancelled leaves when it has ended, or was never begun."""
    waiting = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        job.cancel()
        while not waiting.done():
            try:
                await asyncio.wait({waiting})
            except asyncio.CancelledError:
                continue  # one answer to many cancellations
        if not waiting.cancelled():
            waiting.exception()  # nobody else hears of it
        raise
