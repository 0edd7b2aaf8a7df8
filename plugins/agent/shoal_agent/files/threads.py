"""A few threads for what may wait for a disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
COUNT = 8


class Threads:
    """Started when they are needed; at most `COUNT` operations run, later ones wait."""

    def __init__(self, count: int = COUNT) -> None:
        self._executor = ThreadPoolExecutor(count, "files")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of `function`, called in a thread. Raises what it raises."""
        loop = asyncio.get_running_loop()
        if kwargs:
            return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))
        return await loop.run_in_executor(self._executor, function, *args)
