"""Volumes with the files of execd: made, filled, and compared with what was put in."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
from docker import APIClient
from msgspec import Struct

from shoal.errors import EngineFailure, ShoalError
from shoal_docker import labels
from shoal_docker.engine import Engine, EngineError
from shoal_docker.execd.files import INSIDE, File, ImageFile, digest, kept, put, taken
from shoal_docker.images import EngineImage

T = TypeVar("T")

log = structlog.get_logger("shoal.docker")

VOLUME: Final = labels.EXECD_VOLUME
SOURCE: Final = labels.PREFIX + "execd-image"
IMAGE_ID: Final = labels.PREFIX + "execd-image-id"
PLATFORM: Final = labels.PREFIX + "execd-platform"
FILES: Final = labels.PREFIX + "execd-files"
DIGEST: Final = labels.PREFIX + "execd-digest"
"""On a volume: what it was filled from and for, the names of its files, and the digest that they must have."""
VOLUME_PREFIX: Final = "opensandbox-execd-"
DISTRIBUTION_FAILED: Final = "DOCKER::SANDBOX_EXECD_DISTRIBUTION_FAILED"


class FilledVolume(Struct, frozen=True):
    """A filled volume: its name, the path of its content on the engine's machine, and the names in its root."""

    volume: str
    path: str
    names: tuple[str, ...]


class Installed(Struct, frozen=True):
    """What a sandbox's container gets for them."""

    mounts: list[dict[str, Any]]
    labels: dict[str, str]


def installed(files: FilledVolume, directory: str) -> Installed:
    """Each file, read-only, in that directory of a sandbox."""
    mounts = [
        {"Type": "bind", "Source": f"{files.path}/{name}", "Target": f"{directory}/{name}", "ReadOnly": True}
        for name in files.names
    ]
    return Installed(mounts=mounts, labels={VOLUME: files.volume})


class ExecdVolumes:
    """The volumes of one engine.

    Args:
        reference: ``runtime.execd_image``.
    """

    def __init__(self, engine: Engine, reference: str) -> None:
        self._engine = engine
        self._reference = reference
        self._left: set[str] = set()
        """Containers that could not be removed, or may be there although the engine's answer was lost."""

    async def find(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.call("inspect_volume", name)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def verified(self, volume: Mapping[str, Any], image: EngineImage) -> FilledVolume | None:
        """The volume, if it still holds what was put in; None, said in the log, if it does not."""
        name, told = str(volume["Name"]), volume["Labels"]
        names = tuple(str(told.get(FILES) or "").split())
        found = await self._inside(name, image, lambda client, container: kept(client, container, names))
        if digest(found) != told[DIGEST]:
            log.warning("execd's files are not what was put into their volume", volume=name)
            return None
        return FilledVolume(volume=name, path=str(volume["Mountpoint"]), names=names)

    def marks(self, purpose: str) -> dict[str, str]:
        """Labels of every volume of this agent."""
        return {SOURCE: self._reference, PLATFORM: purpose}

    async def taken_from(self, image: EngineImage, parts: tuple[ImageFile, ...]) -> list[File]:
        """The files in an image. Raises EngineError, EngineFailure."""
        return await self._inside(None, image, lambda client, container: taken(client, container, parts))

    async def made(self, name: str, image: EngineImage, files: list[File], marks: Mapping[str, str]) -> FilledVolume:
        """A new volume with the files, or an old one with them once more. Raises EngineError, EngineFailure."""
        names = tuple(dict.fromkeys(file.name.partition("/")[0] for file in files))
        told = {**marks, VOLUME: name, DIGEST: digest(files), FILES: " ".join(names)}
        volume = await self._engine.call("create_volume", name, labels=told)
        await self._inside(name, image, lambda client, container: put(client, container, files))
        log.info("execd is ready", volume=name, source=self._reference, files=names)
        return FilledVolume(volume=name, path=str(volume["Mountpoint"]), names=names)

    async def _inside(self, volume: str | None, image: EngineImage, work: Callable[[APIClient, str], T]) -> T:
        """The work's result, for a container of the image that has the volume and is never started.

        It is done again if another server, starting, sweeps the container away. Raises EngineError, EngineFailure.
        """
        for container in list(self._left):
            await self.discard(container)
        while True:
            container = await self._container(volume, image)
            try:
                return await self._run(work, container)
            except LookupError as error:
                message = f"The image {self._reference} has no {error.args[0]}."
                raise EngineFailure(DISTRIBUTION_FAILED, message) from None
            except EngineError as error:
                if not (error.status == 404 and await self._is_gone(container)):
                    raise error.failure(DISTRIBUTION_FAILED, "execd could not be taken from its image") from None
            finally:
                await self.discard(container)

    async def _run(self, work: Callable[[APIClient, str], T], container: str) -> T:
        return await self._engine.run(lambda client: work(client, container))

    async def _is_gone(self, container: str) -> bool:
        try:
            await self._engine.call("inspect_container", container)
        except EngineError as error:
            return error.status == 404
        return False

    async def _container(self, volume: str | None, image: EngineImage) -> str:
        """A container of the image, with the volume if there is one; files can be moved without starting it."""
        mounts = [] if volume is None else [{"Type": "volume", "Source": volume, "Target": INSIDE}]
        body = {
            "Image": image.reference,
            "Entrypoint": ["/execd"],
            "Labels": labels.blanked(image.labels, {VOLUME: volume or "none"}),
            "NetworkDisabled": True,
            "HostConfig": {"Mounts": mounts},
        }
        name = f"sandbox-execd-{uuid.uuid4()}"
        try:
            await self._engine.call("create_container_from_config", body, name)
        except BaseException:
            self._left.add(name)
            raise
        return name

    async def discard(self, container: str) -> None:
        """Remove it; one that cannot be removed now is removed with the next."""
        self._left.discard(container)
        try:
            await self._engine.call("remove_container", container, force=True)
        except (EngineError, ShoalError) as error:
            if not (isinstance(error, EngineError) and error.status == 404):
                self._left.add(container)
                log.warning("a container that was only to be read is left", container=container, error=str(error))
