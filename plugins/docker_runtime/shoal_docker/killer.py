"""Killing and removing one container, also one whose processes die slowly.

The engine gives up on a container that has not ended ten seconds after SIGKILL. Hundreds of processes under a small CPU
quota take longer than that, since each needs some of the quota to die: what is being killed gets all of the CPU.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from docker import APIClient

from shoal.errors import ShoalError
from shoal_docker.engine import Engine, EngineError, refuse

log = structlog.get_logger("shoal.docker")

SLOW_SECONDS: Final = 0.5
"""How long a kill may take before the container's CPU limit is lifted."""
_GOING: Final = "is already in progress"
_DYING: Final = ("did not receive an exit event", "could not kill", "is still running", "cannot remove a running")
_NANO: Final = 1_000_000_000


class Killer:
    """Removes containers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def kill(self, container: str, *, runs: bool) -> None:
        """Kill and remove, with the anonymous volumes that its image declares; absent is success.

        Args:
            runs: it was seen to run. It is then killed first, since the engine lifts no limit of one that it removes.

        Raises EngineError, and Unavailable if it has not ended within ``docker.api_timeout``.
        """
        while runs and not await self._killed(container):
            await self._wait(container, "not-running")
        while not await self._removed(container):
            await self._wait(container, "not-running")

    async def stop(self, container: str) -> bool:
        """Stop it within its own stop time; whether it has ended. Raises Unavailable."""
        return await self._hurried("stop", container)

    async def _killed(self, container: str) -> bool:
        """Whether it has ended; False if the engine gave up waiting for it."""
        return await self._hurried("kill", container)

    async def _hurried(self, method: str, container: str) -> bool:
        hurrying = asyncio.create_task(self._hurry(container), name=f"hurry {container[:12]}")
        try:
            await self._engine.call(method, container)
        except EngineError as error:
            return not _is_dying(error)  # whatever else it is, the removal says it
        finally:
            hurrying.cancel()
            await asyncio.gather(hurrying, return_exceptions=True)
        return True

    async def _removed(self, container: str) -> bool:
        """Whether it is gone; False if the engine gave up on one that has been killed and will end."""
        try:
            await self._engine.call("remove_container", container, v=True, force=True)
        except EngineError as error:
            if error.status == 409 and _GOING in error.explanation:
                await self._wait(container, "removed")
            elif _is_dying(error):
                log.info("a container is slow to end", container=container[:12])
                return False
            elif error.status != 404:
                raise
        return True

    async def _wait(self, container: str, condition: str) -> None:
        try:
            await self._engine.call("wait", container, condition=condition)
        except EngineError as error:
            if error.status != 404:
                raise

    async def _hurry(self, container: str) -> None:
        """After a while, all of the machine's CPU for a container that is being killed. Never raises."""
        await asyncio.sleep(SLOW_SECONDS)
        every = int(self._engine.info.get("NCPU") or 1) * _NANO
        try:
            await self._engine.run(lambda client: _give_cpu(client, container, every))
        except (EngineError, ShoalError) as error:
            log.debug("a CPU limit could not be lifted", container=container[:12], error=str(error))


def _is_dying(error: EngineError) -> bool:
    return any(words in error.explanation.lower() for words in _DYING)


def _give_cpu(client: APIClient, container: str, nano: int) -> None:
    url = f"{client.base_url}/v{client.api_version}/containers/{container}/update"
    with client.post(url, json={"NanoCpus": nano}) as response:
        if not response.ok:
            refuse(response)
