"""An agent that a plugin provides: its files are on the server's machine, and need no image and no registry.

They are written into a volume of the engine through a container that is made of the sandbox's own image and is never
started, so that it works on an engine of another machine, too. From there on they are what an image's would be.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from shoal.errors import EngineFailure, ShoalError
from shoal.plugin.interfaces import Agent, AgentFiles, Progress
from shoal_docker.bodies import RUNTIME_DIR
from shoal_docker.engine import Engine, EngineError
from shoal_docker.execd.files import packed
from shoal_docker.execd.filling import START_FAILED, Filling, Origin
from shoal_docker.execd.volumes import DISTRIBUTION_FAILED, IMAGE_ID, SOURCE, Installed, installed
from shoal_docker.images import EngineImage

log = structlog.get_logger("shoal.docker")

_SLOW_SECONDS: Final = 0.5
"""What takes longer is shown in the sandbox's status."""


class ProvidedExecd:
    """The files of a registered agent.

    Args:
        required: ``runtime.execd_image`` names it; a sandbox of a platform that it has no files for then fails, instead
            of doing without.
    """

    def __init__(self, engine: Engine, agent: Agent, *, required: bool) -> None:
        self._engine = engine
        self._agent = agent
        self._required = required
        self._filling = Filling(engine, agent.name)
        self._lacking: set[str] = set()
        self._preparing: asyncio.Task[None] | None = None
        self._getting: dict[str, asyncio.Task[AgentFiles | None]] = {}
        self.forget = self._filling.forget

    async def start(self) -> None:
        """Remove what is not needed any more; have the files made, and old ones removed, behind.

        Raises EngineError, Unavailable.
        """
        await self._filling.sweep(lambda found: found.get(SOURCE) == self._agent.name)
        self._preparing = asyncio.create_task(self._prepare(), name="agent")

    async def _prepare(self) -> None:
        try:
            files = await self._get(f"{self._engine.os}/{self._engine.arch}")
            if files is not None:
                await self._filling.sweep(lambda found: found.get(IMAGE_ID) == files.digest)
        except (EngineError, ShoalError) as error:
            log.warning("the agent is not ready, creates will try again", error=str(error))

    async def stop(self) -> None:
        """End what is under way."""
        under_way = [*self._getting.values(), *([self._preparing] if self._preparing else [])]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._filling.stop()

    async def given_to(self, image: EngineImage, *, guest: bool, progress: Progress) -> Installed | None:
        """What a sandbox of that image gets, distributed if need be; None where there is nothing for it.

        Raises EngineFailure and Unavailable.
        """
        platform = f"{image.os or self._engine.os}/{image.arch or self._engine.arch}"
        files = None if guest else await self._files(platform, progress)
        if files is None:
            self._do_without(platform)
            return None
        folder = files.folder
        origin = Origin(
            id=files.digest,
            purpose=f"{platform} of {self._agent.name}",
            carrier=image,
            read=lambda: asyncio.to_thread(packed, folder),
        )
        filled = await self._filling.once(origin.base, lambda: self._filling.filled_from(origin))
        if filled is None:
            raise EngineFailure(START_FAILED, f"No volume is left for the files of {self._agent.name}.")
        return installed(filled, RUNTIME_DIR)

    async def _files(self, platform: str, progress: Progress) -> AgentFiles | None:
        getting = self._get(platform)
        done, _ = await asyncio.wait([getting], timeout=_SLOW_SECONDS)
        if not done:
            progress("AGENT_PREPARING", "The agent of sandboxes is being prepared.")
        return await asyncio.shield(getting)

    def _get(self, platform: str) -> asyncio.Task[AgentFiles | None]:
        """Asks the agent, once for all who want to know; what failed is asked again."""
        task = self._getting.get(platform)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._getting[platform] = asyncio.create_task(self._agent.files(platform), name=f"agent {platform}")
        return task

    def _do_without(self, platform: str) -> None:
        message = f"The agent {self._agent.name!r} has no files for {platform}"
        if self._required:
            raise EngineFailure(DISTRIBUTION_FAILED, f"{message}; runtime.execd_image may name an image that has.")
        if platform not in self._lacking:
            self._lacking.add(platform)
            log.warning("sandboxes have no agent", reason=message)
