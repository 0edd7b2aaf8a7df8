"""Controllers on a loop of their own, for tests that block while they talk to a server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Any, Protocol

from shoal_k8s.api import KubeClient
from shoal_k8s.api.connection import ApiConnection


class Runs(Protocol):
    """A controller."""

    def running(self) -> AbstractAsyncContextManager[Any]:
        """Works until it is left."""
        ...


async def _nothing(client: KubeClient) -> None:
    return


@contextmanager
def in_thread(
    make: Callable[[KubeClient], list[Runs]], before: Callable[[KubeClient], Awaitable[None]] = _nothing
) -> Iterator[None]:
    """Run what ``make`` makes while the context lasts; ``before`` prepares the cluster."""
    up, over = threading.Event(), threading.Event()
    broken: list[BaseException] = []

    async def control() -> None:
        client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
        try:
            await before(client)
            async with AsyncExitStack() as stack:
                for controller in make(client):
                    await stack.enter_async_context(controller.running())
                up.set()
                await asyncio.to_thread(over.wait)
        finally:
            client.close()

    def run() -> None:
        try:
            asyncio.run(control())
        except BaseException as error:
            broken.append(error)
            up.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert up.wait(60), "the controllers do not start"
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert not broken, broken
