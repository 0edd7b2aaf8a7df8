"""Creates under way, each a task of its own, which a removal may end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from shoal.lifecycle.lanes import end_tasks


class CreatesUnderWay:
    """By sandbox."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, sandbox_id: str, create: Coroutine[Any, Any, None]) -> None:
        """Run it beside the sandbox's lane; returns at once."""
        task = asyncio.get_running_loop().create_task(create, name=f"create {sandbox_id}")
        self._tasks[sandbox_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(sandbox_id, None))

    def making(self, sandbox_id: str) -> bool:
        """Whether a create of it is under way here."""
        return sandbox_id in self._tasks

    async def abandon(self, sandbox_id: str) -> None:
        """A removal has come: returns once nothing of the create runs any more. Called on the sandbox's lane."""
        task = self._tasks.get(sandbox_id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def stop(self, grace: float) -> None:
        """Give creates ``grace`` seconds to end, then cut them off; the next start begins them again."""
        await end_tasks(self._tasks.values(), grace)
