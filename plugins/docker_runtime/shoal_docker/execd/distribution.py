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

from collections.abc import Mapping

import structlog

from shoal.errors import EngineFailure
from shoal.plugin.interfaces import Progress
from shoal_docker import windows
from shoal_docker.bodies import RUNTIME_DIR
from shoal_docker.engine import Engine, EngineError
from shoal_docker.execd.files import LINUX, WINDOWS, ImageFile
from shoal_docker.execd.filling import START_FAILED, Filling, Origin
from shoal_docker.execd.volumes import IMAGE_ID, PLATFORM, SOURCE, FilledVolume, Installed, installed
from shoal_docker.images import EngineImage, Images
from shoal_docker.images.ensure import Policy

log = structlog.get_logger("shoal.docker")


class Execd:
    """The files of one execd image.

    Args:
        reference: ``runtime.execd_image``.
    """

    def __init__(self, engine: Engine, images: Images, reference: str, policy: Policy) -> None:
        self._engine = engine
        self._filling = Filling(engine, reference)
        self._images = images
        self._reference = reference
        self._policy = policy
        self.forget, self.stop = self._filling.forget, self._filling.stop

    async def start(self) -> None:
        """Remove what is not needed any more. Raises EngineError, Unavailable."""
        current = await self._current()
        await self._filling.sweep(lambda found: self._is_wanted(found, current))

    async def given_to(self, image: EngineImage, *, guest: bool, progress: Progress) -> Installed | None:
        """What a sandbox of that image gets, distributed if need be; ``guest`` if it emulates a machine.

        Raises EngineFailure with the API's codes, and Unavailable.
        """
        if guest:
            return installed(await self._files(WINDOWS, None, progress), windows.OEM_DIRECTORY)
        native = (image.os, image.arch) in (("", ""), (self._engine.os, self._engine.arch))
        platform = None if native else f"{image.os}/{image.arch}"
        return installed(await self._files(LINUX, platform, progress), RUNTIME_DIR)

    async def _files(self, parts: tuple[ImageFile, ...], platform: str | None, progress: Progress) -> FilledVolume:
        """The files for a sandbox of that platform (None: the engine's own)."""
        image = None if self._policy == "Always" else await self._present(platform, progress)
        if image is None and self._policy != "Always":
            purpose = _purpose(parts, platform)
            remembered = await self._filling.once(purpose, lambda: self._remembered(purpose))
            if remembered is not None:
                return remembered
        if image is None:
            image = await self._images.ensure(self._reference, None, platform, self._policy, progress)
        origin = self._origin(image, parts, platform)
        filled = await self._filling.once(origin.base, lambda: self._filling.filled_from(origin))
        if filled is None:
            raise EngineFailure(START_FAILED, f"No volume is left for the files of {self._reference}.")
        return filled

    def _origin(self, image: EngineImage, parts: tuple[ImageFile, ...], platform: str | None) -> Origin:
        return Origin(
            id=image.id,
            purpose=_purpose(parts, platform),
            carrier=image,
            read=lambda: self._filling.volumes.taken_from(image, parts),
            suffix="-windows" if parts is WINDOWS else "",
        )

    async def _present(self, platform: str | None, progress: Progress) -> EngineImage | None:
        """The image, if the engine has it. Raises Unavailable."""
        try:
            return await self._images.ensure(self._reference, None, platform, "Never", progress)
        except EngineFailure:
            return None

    def _is_wanted(self, found: Mapping[str, str], current: str | None) -> bool:
        """Whether new sandboxes may need it: it is of the present version, or what is left of an image that is gone."""
        return found.get(SOURCE) == self._reference if current is None else found.get(IMAGE_ID) == current

    async def _current(self) -> str | None:
        """The id of the present version; None where the image is not there."""
        try:
            described = await self._engine.call("inspect_image", self._reference)
        except EngineError:
            return None
        return str(described.get("Id") or "")

    async def _remembered(self, purpose: str) -> FilledVolume | None:
        """A volume that was filled from this reference before the image went; None if there is none."""
        try:
            answer = await self._engine.call("volumes", filters={"label": [f"{SOURCE}={self._reference}"]})
            of_platform = [each for each in answer.get("Volumes") or [] if each["Labels"].get(PLATFORM) == purpose]
            for volume in sorted(of_platform, key=lambda each: str(each.get("CreatedAt")), reverse=True):
                for other in (await self._engine.call("images"))[:1]:  # any will do, nothing of it is started
                    carrier = EngineImage(reference=str(other["Id"]), id=str(other["Id"]))
                    found = await self._filling.volumes.verified(volume, carrier)
                    if found is not None:
                        log.warning("the execd image is gone; its files are still here", image=self._reference)
                        return found
        except EngineError as error:
            raise error.failure(START_FAILED, "execd's files could not be looked at") from None
        return None


def _purpose(parts: tuple[ImageFile, ...], platform: str | None) -> str:
    """What the files are for, as the label says it."""
    return f"{'windows' if parts is WINDOWS else 'linux'} {platform or 'native'}"
