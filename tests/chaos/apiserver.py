"""The way of one server to the API server, which a run closes and opens."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.faults import Fault
from tests.k8s_runtime.relay import Relay, of_kubeconfig

T = TypeVar("T")


class DrainedApi:
    """A relay of its own, on a loop of its own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._relay: Relay = self._call(self._open())
        self.kubeconfig = self._relay.kubeconfig(folder)

    async def _open(self) -> Relay:
        return await Relay(of_kubeconfig()).__aenter__()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def fault(self, name: str) -> Fault:
        return Fault(f"the API server is drained for the {name}", f"api of the {name}", self._drain, self._return)

    def _drain(self, _chance: random.Random) -> None:
        self._relay.refusing = True
        self._loop.call_soon_threadsafe(self._relay.cut)

    def _return(self) -> None:
        self._relay.refusing = False

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._relay.__aexit__(None, None, None)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
