"""From a reference to an image that a container can be made of (docs/wire/docker.md section 6)."""

from __future__ import annotations

import asyncio
from typing import Literal

from msgspec.structs import replace

from shoal.errors import EngineFailure
from shoal.models.requests import ImageAuth
from shoal.plugin.interfaces import Progress
from shoal_docker.engine import Engine, EngineError
from shoal_docker.images.access import ImageAccess
from shoal_docker.images.credentials import RegistryCredentials
from shoal_docker.images.names import Name, parse
from shoal_docker.images.presence import EngineImage, Presence
from shoal_docker.images.pulls import PULL_FAILED, Pulls

Policy = Literal["IfNotPresent", "Always", "Never"]


class Images:
    """The images of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        credentials = RegistryCredentials()
        self._presence = Presence(engine)
        self._pulls = Pulls(engine, credentials)
        self._access = ImageAccess(engine, credentials, self._pull_quietly)

    async def start(self) -> None:
        """Begin to listen to the engine, which has been started."""
        await self._presence.start()

    async def stop(self) -> None:
        """Ends what is under way; who waits for it gets an error."""
        await asyncio.gather(self._presence.stop(), self._pulls.stop(), self._access.stop())

    def check(self, reference: str) -> None:
        """Raise InvalidRequest for text that is no image reference."""
        parse(reference)

    async def ensure(
        self, reference: str, auth: ImageAuth | None, platform: str | None, policy: Policy, progress: Progress
    ) -> EngineImage:
        """The image, pulled if need be.

        Args:
            reference: as the caller wrote it.
            auth: registry credentials for this call alone; None = those of the user that the server runs as.
            platform: ``os/arch`` that the request names; None = the engine's own, where it says what that is.
            progress: called during a pull at most once per second.

        Raises InvalidRequest, Unavailable, and EngineFailure with ``DOCKER::SANDBOX_IMAGE_PULL_FAILED`` and the
        registry's own words. An image that is known to be there costs no call of the engine.
        """
        name = parse(reference)
        wanted = platform or self._native()
        try:
            found = None if policy == "Always" else await self._presence.find(name, wanted)
            if found is None and policy != "Always" and (whole := await self._presence.identified(name)) is not None:
                name, found = parse(whole.id), whole
            if found is None or not found.fits(wanted):
                if policy == "Never":
                    raise EngineFailure(PULL_FAILED, _lacking(name, found, wanted))
                return await self._pulled(name, platform, auth, progress)
        except EngineError as error:
            raise error.failure(PULL_FAILED, f"The image {name} could not be looked up") from None
        if policy != "Never":
            await self._access.check(name, found, auth)
        return found

    async def ensure_again(
        self, reference: str, auth: ImageAuth | None, platform: str | None, policy: Policy, progress: Progress
    ) -> EngineImage:
        """The same after a create that the engine refused with 404: what was known counts no more."""
        self._presence.forget()
        return await self.ensure(reference, auth, platform, policy, progress)

    async def local(self, reference: str) -> EngineImage:
        """An image that no registry has, a snapshot's. Raises EngineFailure if it is gone."""
        name = parse(reference)
        try:
            found = await self._presence.find(name, None)
        except EngineError as error:
            raise error.failure(PULL_FAILED, f"The image {name} could not be looked up") from None
        if found is None:
            raise EngineFailure(PULL_FAILED, f"The image {name} is not on the engine any more.")
        return found

    async def _pulled(
        self, name: Name, platform: str | None, auth: ImageAuth | None, progress: Progress
    ) -> EngineImage:
        """Raises EngineError and EngineFailure."""
        await self._pulls.pull(name, platform, auth, progress)
        self._access.grant(name, auth)
        self._presence.forget()
        wanted = platform or self._native()
        found = await self._presence.find(name, wanted)
        if found is None:
            raise EngineFailure(PULL_FAILED, f"The image {name} was removed as soon as it had been pulled.")
        if found.fits(wanted):
            return found
        if platform is None:
            found = replace(found, final=True)
        elif self._keeps_platforms():  # and describes its own
            os, _, arch = platform.partition("/")
            found = replace(found, os=os, arch=arch)
        else:
            raise EngineFailure(PULL_FAILED, f"The registry has the image {name} for {found.platform}, not {platform}.")
        self._presence.keep(name, wanted, found)
        return found

    async def _pull_quietly(self, name: Name, auth: ImageAuth | None) -> None:
        await self._pulls.pull(name, None, auth, lambda reason, message: None)

    def _keeps_platforms(self) -> bool:
        """Whether several platforms of an image stand under one name: those of containerd's own image store do."""
        status = self._engine.info.get("DriverStatus") or []
        return any("io.containerd.snapshotter" in str(entry) for entry in status)

    def _native(self) -> str | None:
        engine = self._engine
        return f"{engine.os}/{engine.arch}" if engine.os and engine.arch else None


def _lacking(name: Name, found: EngineImage | None, wanted: str | None) -> str:
    if found is None:
        return f"The image {name} is not on the engine, and docker.image_pull_policy is Never."
    return f"The image {name} is for {found.platform} and not for {wanted}; docker.image_pull_policy is Never."
