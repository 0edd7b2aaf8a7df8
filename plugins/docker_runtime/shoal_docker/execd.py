"""execd in a sandbox: taken from ``runtime.execd_image`` once, and given to every sandbox without a copy.

A named volume holds the files, one volume for each version of the image; each file is bound read-only into the sandbox
by its path on the engine's machine. `/opt/opensandbox` itself stays the sandbox's own directory, for execd and its
bootstrap write there (contract/docker.md section 4), and the egress sidecar shares it.

Measured with a create and a start each, medians of twelve in turns on Docker 20.10: nothing given 264 ms, files bound
251 ms, the volume mounted as a whole 245 ms, an image prepared with the files 245 ms. No difference beyond the noise,
and bound files need no image of ours for each of the callers', and let a new execd reach every new sandbox at once.

A volume is complete once its marker is there, which is written last; whoever finds none fills it again. What a crash
left half-filled is thus completed, and two servers that fill one volume write the same. The container that a crash left
goes at the next start; should it be another server's, that one makes itself another.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
import uuid
from collections.abc import Iterable
from typing import Any, Final

import structlog
from docker import APIClient
from msgspec import Struct

from shoal.errors import EngineFailure, ShoalError
from shoal.plugin.interfaces import Progress
from shoal_docker import labels
from shoal_docker.engine import Engine, EngineError, refuse
from shoal_docker.images import Image, Images
from shoal_docker.images.ensure import Policy

log = structlog.get_logger("shoal.docker")

VOLUME: Final = labels.EXECD_VOLUME
VOLUME_PREFIX: Final = "opensandbox-execd-"
_MARKER: Final = ".complete"
_INSIDE: Final = "/opensandbox-execd"
"""Where the container that fills a volume has it mounted."""
DISTRIBUTION_FAILED: Final = "DOCKER::SANDBOX_EXECD_DISTRIBUTION_FAILED"
START_FAILED: Final = "DOCKER::SANDBOX_EXECD_START_FAILED"


class Part(Struct, frozen=True):
    """A file of the image, and its name in the directory."""

    source: str
    name: str
    optional: bool = False


LINUX: Final = (
    Part("/execd", "execd"),
    Part("/bootstrap.sh", "bootstrap.sh"),
    Part("/usr/local/bin/bwrap", "bwrap", optional=True),
    Part("/usr/local/libexec/opensandbox-session-gate", "opensandbox-session-gate", optional=True),
    Part("/usr/local/libexec/opensandbox-launcher", "opensandbox-launcher", optional=True),
)
WINDOWS: Final = (Part("/install.bat", "install.bat"), Part("/execd.exe", "execd.exe"))


class Files(Struct, frozen=True):
    """A filled volume: its name, the path of its content on the engine's machine, and what is in it."""

    volume: str
    path: str
    names: tuple[str, ...]


class Installed(Struct, frozen=True):
    """What a sandbox's container gets for them."""

    mounts: list[dict[str, Any]]
    labels: dict[str, str]


def installed(files: Files, directory: str) -> Installed:
    """Each file, read-only, in that directory of a sandbox."""
    mounts = [
        {"Type": "bind", "Source": f"{files.path}/{name}", "Target": f"{directory}/{name}", "ReadOnly": True}
        for name in files.names
    ]
    return Installed(mounts=mounts, labels={VOLUME: files.volume})


class Execd:
    """The files of one execd image.

    Args:
        reference: ``runtime.execd_image``.
    """

    def __init__(self, engine: Engine, images: Images, reference: str, policy: Policy) -> None:
        self._engine = engine
        self._images = images
        self._reference = reference
        self._policy = policy
        self._filled: dict[str, asyncio.Task[Files]] = {}

    async def files(self, parts: tuple[Part, ...], platform: str | None, progress: Progress) -> Files:
        """The files for a sandbox of that platform (None: the engine's own), distributed if need be.

        Raises EngineFailure with the contract's codes, and Unavailable.
        """
        image = await self._images.ensure(self._reference, None, platform, self._policy, progress)
        name = _volume(image, parts)
        task = self._filled.get(name)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._filled[name] = asyncio.create_task(self._fill(name, image, parts), name=f"fill {name}")
        return await asyncio.shield(task)  # one waiter that leaves does not end it for the others

    def forget(self) -> None:
        """The engine did not have what was thought to be there: look again."""
        self._filled = {name: task for name, task in self._filled.items() if not task.done()}

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._filled.values():
            task.cancel()
        await asyncio.gather(*self._filled.values(), return_exceptions=True)

    async def sweep(self) -> None:
        """Remove what a crash left, and the versions that no sandbox has any more. Raises EngineError, Unavailable."""
        answer = await self._engine.call("volumes", filters={"label": [VOLUME]})
        found = {str(each["Name"]) for each in answer.get("Volumes") or []}
        if not found:
            return
        holders = await self._engine.call("containers", all=True, filters={"label": [VOLUME]})
        sandboxes = [each for each in holders if labels.ID in each["Labels"]]
        for each in holders:
            if each not in sandboxes:
                await self._discard(str(each["Id"]))
        used = {each["Labels"][VOLUME] for each in sandboxes}
        current = await self._current()
        for name in found - used:
            if current is None or not name.startswith(current):
                await self._remove_volume(name)

    async def _current(self) -> str | None:
        """How volumes of the present version begin; None where the image is not there."""
        try:
            described = await self._engine.call("inspect_image", self._reference)
        except EngineError:
            return None
        return VOLUME_PREFIX + _short(str(described.get("Id") or ""))

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._engine.call("remove_volume", name)
        except EngineError as error:
            if error.status not in (404, 409):
                raise
        else:
            log.info("removed the files of an old execd", volume=name)

    async def _fill(self, name: str, image: Image, parts: tuple[Part, ...]) -> Files:
        names = None
        while names is None:
            try:
                volume = await self._engine.call("create_volume", name, labels={VOLUME: name})
                container = await self._container(name, image)
            except EngineError as error:
                raise error.failure(START_FAILED, f"The execd image {self._reference} could not be opened") from None
            try:
                names = await self._copied(container, parts)
            finally:
                await self._discard(container)
        log.info("execd is ready", volume=name, image=self._reference, files=names)
        return Files(volume=name, path=str(volume["Mountpoint"]), names=tuple(names))

    async def _copied(self, container: str, parts: tuple[Part, ...]) -> list[str] | None:
        """The names of the files in the volume; None if another server, starting, swept the container away."""
        try:
            return await self._engine.run(lambda client: _distribute(client, container, parts))
        except LookupError as error:
            raise EngineFailure(DISTRIBUTION_FAILED, f"The image {self._reference} has no {error.args[0]}.") from None
        except EngineError as error:
            if error.status == 404 and await self._is_gone(container):
                return None
            raise error.failure(DISTRIBUTION_FAILED, "execd could not be taken from its image") from None

    async def _is_gone(self, container: str) -> bool:
        try:
            await self._engine.call("inspect_container", container)
        except EngineError as error:
            return error.status == 404
        return False

    async def _container(self, volume: str, image: Image) -> str:
        """A container of the image with the volume in it; never started, for files can be moved without."""
        body = {
            "Image": image.reference,
            "Entrypoint": ["/execd"],
            "Labels": labels.blanked(image.labels, {VOLUME: volume}),
            "NetworkDisabled": True,
            "HostConfig": {"Mounts": [{"Type": "volume", "Source": volume, "Target": _INSIDE}]},
        }
        made = await self._engine.call("create_container_from_config", body, f"sandbox-execd-{uuid.uuid4()}")
        return str(made["Id"])

    async def _discard(self, container: str) -> None:
        try:
            await self._engine.call("remove_container", container, force=True)
        except (EngineError, ShoalError) as error:
            if not (isinstance(error, EngineError) and error.status == 404):
                log.warning("a container that was only to be read is left", container=container[:12], error=str(error))


def _volume(image: Image, parts: tuple[Part, ...]) -> str:
    return f"{VOLUME_PREFIX}{_short(image.id)}{'-windows' if parts is WINDOWS else ''}"


def _short(image_id: str) -> str:
    return image_id.rpartition(":")[2][:16]


def _distribute(client: APIClient, container: str, parts: Iterable[Part]) -> list[str]:
    """Copy what is not there yet; the names of all. Raises LookupError for a file that the image must have."""
    kept = _read(client, container, f"{_INSIDE}/{_MARKER}")
    if kept is not None:
        return kept[1].decode().split()
    found = []
    for part in parts:
        read = _read(client, container, part.source)
        if read is not None:
            _write(client, container, part.name, *read)
            found.append(part.name)
        elif not part.optional:
            raise LookupError(part.source)
    _write(client, container, _MARKER, 0o444, " ".join(found).encode())
    return found


def _read(client: APIClient, container: str, path: str) -> tuple[int, bytes] | None:
    """Mode and content of a file; None if there is none. Links within the image are followed by the engine."""
    response = client.get(_url(client, container), params={"path": path})
    with response:
        if response.status_code == 404 and "no such container" not in response.text.lower():
            return None
        if not response.ok:
            refuse(response)
        with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    return member.mode & 0o777, content.read()
    return None


def _write(client: APIClient, container: str, name: str, mode: int, content: bytes) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        archive.addfile(member, io.BytesIO(content))
    response = client.put(_url(client, container), params={"path": _INSIDE}, data=packed.getvalue())
    with response:
        if not response.ok:
            refuse(response)


def _url(client: APIClient, container: str) -> str:
    return f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
