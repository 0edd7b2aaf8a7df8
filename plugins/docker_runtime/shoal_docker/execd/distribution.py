"""execd in a sandbox: taken from ``runtime.execd_image`` once, and given to every sandbox without a copy.

A named volume holds the files, one volume for each version of the image; each file is bound read-only into the sandbox
by its path on the engine's machine. `/opt/opensandbox` itself stays the sandbox's own directory, for execd and its
bootstrap write there (docs/wire/docker.md section 4), and the egress sidecar shares it.

Measured with a create and a start each, medians of twelve in turns on Docker 20.10: nothing given 264 ms, files bound
251 ms, the volume mounted as a whole 245 ms, an image prepared with the files 245 ms. No difference beyond the noise,
and bound files need no image of ours for each of the callers', and let a new execd reach every new sandbox at once.

A volume's labels, which only a server can set, say what it was filled from and the digest of the files. After each
start of a server, before the first use, the files are compared with it: what a crash left half-filled, or somebody
changed, is filled again. A volume of that name without the labels is never used, and callers cannot claim one of that
name. Where the image is gone (``docker image prune``), a volume that was filled from it serves. The container that a
crash left goes at the next start; should it be another server's, that one makes itself another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from shoal.errors import EngineFailure
from shoal.plugin.interfaces import Progress
from shoal_docker import labels
from shoal_docker.engine import Engine, EngineError
from shoal_docker.execd.files import WINDOWS, Part
from shoal_docker.execd.volumes import DIGEST, IMAGE_ID, PLATFORM, SOURCE, VOLUME, VOLUME_PREFIX, ExecdVolumes, Files
from shoal_docker.images import EngineImage, Images
from shoal_docker.images.ensure import Policy

log = structlog.get_logger("shoal.docker")

START_FAILED: Final = "DOCKER::SANDBOX_EXECD_START_FAILED"
_NAMES: Final = 9
"""Names that are tried for the volume of one version, should somebody else have taken one."""


class Execd:
    """The files of one execd image.

    Args:
        reference: ``runtime.execd_image``.
    """

    def __init__(self, engine: Engine, images: Images, reference: str, policy: Policy) -> None:
        self._engine = engine
        self._volumes = ExecdVolumes(engine, reference)
        self._images = images
        self._reference = reference
        self._policy = policy
        self._found: dict[str, asyncio.Task[Files | None]] = {}

    async def files(self, parts: tuple[Part, ...], platform: str | None, progress: Progress) -> Files:
        """The files for a sandbox of that platform (None: the engine's own), distributed if need be.

        Raises EngineFailure with the API's codes, and Unavailable.
        """
        image = None if self._policy == "Always" else await self._present(platform, progress)
        if image is None and self._policy != "Always":
            remembered = await self._once(_purpose(parts, platform), lambda: self._remembered(parts, platform))
            if remembered is not None:
                return remembered
        if image is None:
            image = await self._images.ensure(self._reference, None, platform, self._policy, progress)
        filled = await self._once(_base(image, parts), lambda: self._filled_from(image, parts, platform))
        if filled is None:
            raise EngineFailure(START_FAILED, f"No volume is left for the files of {self._reference}.")
        return filled

    async def _present(self, platform: str | None, progress: Progress) -> EngineImage | None:
        """The image, if the engine has it. Raises Unavailable."""
        try:
            return await self._images.ensure(self._reference, None, platform, "Never", progress)
        except EngineFailure:
            return None

    async def _once(self, key: str, work: Callable[[], Coroutine[Any, Any, Files | None]]) -> Files | None:
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

    async def sweep(self) -> None:
        """Remove what a crash left, and the versions that no sandbox has any more. Raises EngineError, Unavailable."""
        answer = await self._engine.call("volumes", filters={"label": [VOLUME]})
        found = {str(each["Name"]): each for each in answer.get("Volumes") or []}
        # Also where there is no volume: an image is read in a container before there is one.
        holders = await self._engine.call("containers", all=True, filters={"label": [VOLUME]})
        sandboxes = [each for each in holders if labels.ID in each["Labels"]]
        for each in holders:
            if each not in sandboxes:
                await self._volumes.discard(str(each["Id"]))
        used = {each["Labels"][VOLUME] for each in sandboxes}
        current = await self._current()
        for name in found.keys() - used:
            if not self._is_wanted(found[name], current):
                await self._remove_volume(name)

    def _is_wanted(self, volume: Mapping[str, Any], current: str | None) -> bool:
        """Whether new sandboxes may need it: it is of the present version, or what is left of an image that is gone."""
        found: dict[str, str] = volume["Labels"]
        if DIGEST not in found:
            return False
        return found.get(SOURCE) == self._reference if current is None else found.get(IMAGE_ID) == current

    async def _current(self) -> str | None:
        """The id of the present version; None where the image is not there."""
        try:
            described = await self._engine.call("inspect_image", self._reference)
        except EngineError:
            return None
        return str(described.get("Id") or "")

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._engine.call("remove_volume", name)
        except EngineError as error:
            if error.status not in (404, 409):
                raise
        else:
            log.info("removed the files of an old execd", volume=name)

    async def _filled_from(self, image: EngineImage, parts: tuple[Part, ...], platform: str | None) -> Files | None:
        """A volume with the image's files: one that has them, or a new one; None if every name is taken."""
        for number in range(1, _NAMES + 1):
            name = _base(image, parts) + ("" if number == 1 else f"-{number}")
            try:
                volume = await self._volumes.find(name)
                if volume is None:
                    return await self._volumes.made(name, image, parts, _purpose(parts, platform))
                told = volume.get("Labels") or {}
                if not (told.get(VOLUME) == name and told.get(IMAGE_ID) == image.id and told.get(DIGEST)):
                    log.warning("a volume with a name of execd's is not used, it is of another maker", volume=name)
                    continue
                intact = await self._volumes.verified(volume, image)
                return intact or await self._volumes.made(name, image, parts, _purpose(parts, platform))
            except EngineError as error:
                raise error.failure(START_FAILED, f"The execd image {self._reference} could not be opened") from None
        return None

    async def _remembered(self, parts: tuple[Part, ...], platform: str | None) -> Files | None:
        """A volume that was filled from this reference before the image went; None if there is none."""
        try:
            answer = await self._engine.call("volumes", filters={"label": [f"{SOURCE}={self._reference}"]})
            of_platform = [
                each
                for each in answer.get("Volumes") or []
                if each["Labels"].get(PLATFORM) == _purpose(parts, platform)
            ]
            for volume in sorted(of_platform, key=lambda each: str(each.get("CreatedAt")), reverse=True):
                for other in (await self._engine.call("images"))[:1]:  # any will do, nothing of it is started
                    found = await self._volumes.verified(
                        volume, EngineImage(reference=str(other["Id"]), id=str(other["Id"]))
                    )
                    if found is not None:
                        log.warning("the execd image is gone; its files are still here", image=self._reference)
                        return found
        except EngineError as error:
            raise error.failure(START_FAILED, "execd's files could not be looked at") from None
        return None


def _base(image: EngineImage, parts: tuple[Part, ...]) -> str:
    return f"{VOLUME_PREFIX}{_short(image.id)}{'-windows' if parts is WINDOWS else ''}"


def _purpose(parts: tuple[Part, ...], platform: str | None) -> str:
    """What the files are for, as the label says it."""
    return f"{'windows' if parts is WINDOWS else 'linux'} {platform or 'native'}"


def _short(image_id: str) -> str:
    return image_id.rpartition(":")[2][:16]
