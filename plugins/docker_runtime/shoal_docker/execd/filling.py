"""Filling volumes with an agent's files, once for all who ask, and sweeping those that nobody needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

import structlog
from msgspec import Struct

from shoal_docker import labels
from shoal_docker.engine import Engine, EngineError
from shoal_docker.execd.files import File
from shoal_docker.execd.volumes import DIGEST, IMAGE_ID, VOLUME, VOLUME_PREFIX, ExecdVolumes, FilledVolume
from shoal_docker.images import EngineImage

log = structlog.get_logger("shoal.docker")

START_FAILED: Final = "DOCKER::SANDBOX_EXECD_START_FAILED"
_NAMES: Final = 9
"""Names that are tried for the volume of one version, should somebody else have taken one."""


class Origin(Struct, frozen=True, kw_only=True):
    """One version of an agent, as it gets into a volume.

    Attributes:
        id: ``sha256:…`` of the image, or of the files.
        purpose: what the files are for.
        carrier: an image that the engine has; nothing of it is started.
        read: the files.
        suffix: of the volume's name.
    """

    id: str
    purpose: str
    carrier: EngineImage
    read: Callable[[], Awaitable[list[File]]]
    suffix: str = ""

    @property
    def base(self) -> str:
        """The volume's name, unless it is taken."""
        return f"{VOLUME_PREFIX}{self.id.rpartition(':')[2][:16]}{self.suffix}"


class Filling:
    """The volumes of one agent on one engine.

    Args:
        reference: how ``runtime.execd_image`` names it.
    """

    def __init__(self, engine: Engine, reference: str) -> None:
        self.volumes = ExecdVolumes(engine, reference)
        self._engine = engine
        self._reference = reference
        self._found: dict[str, asyncio.Task[FilledVolume | None]] = {}

    async def once(self, key: str, work: Callable[[], Coroutine[Any, Any, FilledVolume | None]]) -> FilledVolume | None:
        """What the work finds, done once for all who ask; nothing found and failures are tried again."""
        task = self._found.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() or task.result() is None)):
            task = self._found[key] = asyncio.create_task(work(), name=f"execd {key}")
        return await asyncio.shield(task)  # one waiter that leaves does not end it for the others

    def forget(self) -> None:
        """The engine did not have what was thought to be there: look again."""
        self._found = {key: task for key, task in self._found.items() if not task.done()}

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._found.values():
            task.cancel()
        await asyncio.gather(*self._found.values(), return_exceptions=True)

    async def filled_from(self, origin: Origin) -> FilledVolume | None:
        """A volume with the files: one that has them, or a new one; None if every name is taken.

        Raises EngineFailure, Unavailable.
        """
        for number in range(1, _NAMES + 1):
            name = origin.base + ("" if number == 1 else f"-{number}")
            try:
                volume = await self.volumes.find(name)
                if volume is not None:
                    told = volume.get("Labels") or {}
                    if not (told.get(VOLUME) == name and told.get(IMAGE_ID) == origin.id and told.get(DIGEST)):
                        log.warning("a volume with a name of execd's is not used, it is of another maker", volume=name)
                        continue
                    intact = await self.volumes.verified(volume, origin.carrier)
                    if intact is not None:
                        return intact
                marks = {IMAGE_ID: origin.id, **self.volumes.marks(origin.purpose)}
                return await self.volumes.made(name, origin.carrier, await origin.read(), marks)
            except EngineError as error:
                raise error.failure(START_FAILED, f"The execd {self._reference} could not be opened") from None
        return None

    async def sweep(self, is_wanted: Callable[[Mapping[str, str]], bool]) -> None:
        """Remove what a crash left, and the versions that no sandbox has any more and that are not wanted, by labels.

        Raises EngineError, Unavailable.
        """
        answer = await self._engine.call("volumes", filters={"label": [VOLUME]})
        found = {str(each["Name"]): each["Labels"] for each in answer.get("Volumes") or []}
        # Also where there is no volume: an image is read in a container before there is one.
        holders = await self._engine.call("containers", all=True, filters={"label": [VOLUME]})
        sandboxes = [each for each in holders if labels.ID in each["Labels"]]
        for each in holders:
            if each not in sandboxes:
                await self.volumes.discard(str(each["Id"]))
        used = {each["Labels"][VOLUME] for each in sandboxes}
        for name in found.keys() - used:
            if DIGEST not in found[name] or not is_wanted(found[name]):
                await self._remove_volume(name)

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._engine.call("remove_volume", name)
        except EngineError as error:
            if error.status not in (404, 409):
                raise
        else:
            log.info("removed the files of an old execd", volume=name)
