"""Which images the engine has.

What was once looked up costs no call again: the engine's own events say when an image was pulled, tagged or removed,
and everything known is forgotten then. Where they cannot be heard nothing is kept; an event that was lost is made good
within `KEPT_SECONDS`, and by the create call, which the engine refuses if the image is gone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

import structlog
from msgspec import Struct

from shoal.errors import ShoalError
from shoal_docker.engine import Engine, EngineError, architecture
from shoal_docker.images.names import Name

log = structlog.get_logger("shoal.docker")

KEPT_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 2.0
"""Wait before the events are asked for again."""
FILTERS: Final = json.dumps({"type": ["image"]})


class EngineImage(Struct, frozen=True, kw_only=True):
    """An image that the engine has.

    Attributes:
        reference: for the create call.
        id: ``sha256:…``.
        os, arch: what it is for; empty where it does not say.
        final: it is what the registry has for this engine, whatever it says it is for.
        labels, env, user: of its configuration.
        tags, digests: every reference that the engine has for it, as the engine writes them.
    """

    reference: str
    id: str
    os: str = ""
    arch: str = ""
    final: bool = False
    labels: dict[str, str] = {}
    env: tuple[str, ...] = ()
    user: str = ""
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()

    def fits(self, platform: str | None) -> bool:
        """Whether it is for ``os/arch``; an image that does not say fits everything."""
        return self.final or platform in (None, self.platform) or not (self.os and self.arch)

    @property
    def platform(self) -> str:
        """``os/arch``."""
        return f"{self.os}/{self.arch}"


class Presence:
    """The images of one engine, as last heard."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[str, str | None], tuple[EngineImage, float]] = {}
        self._generation = 0
        self._heard = False
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._listening = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._listening = None

    async def find(self, name: Name, platform: str | None) -> EngineImage | None:
        """The image; None if the engine has none of that name.

        What is answered may be for another platform than ``platform``. Raises EngineError and Unavailable.
        """
        found, until = self._known.get((str(name), platform), (None, 0.0))
        if found is not None and time.monotonic() < until:
            return found
        generation = self._generation
        try:
            described = await self._engine.call("inspect_image", str(name))
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        image = _image(str(name), described)
        if generation == self._generation and image.fits(platform):
            self.keep(name, platform, image)
        return image

    async def identified(self, name: Name) -> EngineImage | None:
        """The image whose id begins so; None for a name that is no part of an id, and where there is none."""
        if name.short_id is None:
            return None
        try:
            described = await self._engine.call("inspect_image", name.short_id)
        except EngineError as error:
            if error.status in (400, 404, 500):  # 400 and 500: engines differ on one that several ids begin with
                return None
            raise
        image = _image(str(described.get("Id") or ""), described)
        return image if image.id.startswith(f"sha256:{name.short_id}") else None

    def keep(self, name: Name, platform: str | None, image: EngineImage) -> None:
        """Answer `find` with it, while nothing is heard of images."""
        if self._heard:
            self._known[str(name), platform] = image, time.monotonic() + KEPT_SECONDS

    def forget(self) -> None:
        """Look up everything again."""
        self._generation += 1
        self._known.clear()

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except (EngineError, ShoalError) as error:
                log.debug("image events broke off", error=str(error))
            self._heard = False
            self.forget()
            await asyncio.sleep(RETRY_SECONDS)

    async def _hear(self) -> None:
        params = {"filters": FILTERS}
        if not self._engine.remote:
            params["since"] = f"{time.time():.6f}"  # the stream opens a moment later
        async with aclosing(self._engine.stream("/events", params=params)) as events:
            self._heard = True
            async for _ in events:
                self.forget()


def _image(reference: str, described: Mapping[str, Any]) -> EngineImage:
    config = described.get("Config") or {}
    return EngineImage(
        reference=reference,
        id=str(described.get("Id") or ""),
        os=str(described.get("Os") or "").lower(),
        arch=architecture(str(described.get("Architecture") or "")),
        labels={str(key): str(value) for key, value in (config.get("Labels") or {}).items()},
        env=tuple(config.get("Env") or ()),
        user=str(config.get("User") or ""),
        tags=tuple(described.get("RepoTags") or ()),
        digests=tuple(described.get("RepoDigests") or ()),
    )
