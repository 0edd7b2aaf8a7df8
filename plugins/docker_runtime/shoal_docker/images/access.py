"""Who may have an image that the engine already has.

An engine gives every image it holds to everybody, so one that came with somebody's credentials would be open to all.
Here the registry is asked, through the engine, before a caller gets an image that came from one: once for each
repository and credentials, and again after an hour, for a manifest alone. What needs no asking:

- an image that was built or loaded here: no registry has a say in it;
- Docker Hub's own (``library/``), which are everybody's;
- a repository that gave its manifest to somebody without credentials, whatever credentials a caller sends;
- what these credentials have just pulled.

A registry that does not answer within `ASK_SECONDS` refuses nobody, unless it is known by then that the repository
wants credentials; it is asked again after `AWAY_SECONDS`. With ``image_pull_policy = "Never"`` no registry is asked at
all and every image is everybody's; with ``"Always"`` each create asks, by pulling. Podman's API cannot be asked for a
manifest; there an image is pulled instead, which also brings the tag up to date.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from shoal.errors import EngineFailure, ShoalError
from shoal.models.requests import ImageAuth
from shoal_docker.engine import Engine, EngineError
from shoal_docker.images.credentials import NOBODY, RegistryCredentials
from shoal_docker.images.names import Name, parse
from shoal_docker.images.presence import EngineImage
from shoal_docker.images.pulls import PULL_FAILED

log = structlog.get_logger("shoal.docker")

GRANTED_SECONDS: Final = 3600.0
ASK_SECONDS: Final = 10.0
AWAY_SECONDS: Final = 300.0
MAX_GRANTS: Final = 4096
"""Grants that are kept."""
_REFUSALS: Final = ("unauthorized", "denied", "authentication required", "no basic auth", "forbidden", "authorization")

_Key = tuple[str, str]
PullAgain = Callable[[Name, ImageAuth | None], Awaitable[None]]


class ImageAccess:
    """What registries have answered.

    Args:
        pull: how an engine that cannot be asked for a manifest is made to ask for one; None for one that can.
    """

    def __init__(self, engine: Engine, credentials: RegistryCredentials, pull: PullAgain) -> None:
        self._engine = engine
        self._credentials = credentials
        self._pull = pull
        self._granted: dict[_Key, float] = {}
        self._wanting: set[str] = set()
        self._away: dict[str, float] = {}
        self._asking: dict[_Key, asyncio.Task[str | None]] = {}

    async def check(self, name: Name, image: EngineImage, auth: ImageAuth | None) -> None:
        """Return if the caller may have it. Raises EngineFailure with the registry's words if not."""
        origin = _origin(name, image)
        if origin is None or origin.is_official:
            return
        repository, who = origin.repository, self._credentials.who(auth)
        if self._has(repository, NOBODY) or self._has(repository, who):
            return
        refusal = await self._ask_once(origin, who, auth)
        if refusal is not None:
            message = f"The image {name} is here, but its registry does not give it to these credentials: {refusal}"
            raise EngineFailure(PULL_FAILED, message)

    def grant(self, name: Name, auth: ImageAuth | None) -> None:
        """These credentials got the image just now."""
        self._note(name.repository, self._credentials.who(auth))

    async def stop(self) -> None:
        """Wait for no answer any more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _has(self, repository: str, who: str) -> bool:
        return time.monotonic() < self._granted.get((repository, who), 0.0)

    def _note(self, repository: str, who: str) -> None:
        if len(self._granted) >= MAX_GRANTS:
            self._granted.clear()
        self._granted[repository, who] = time.monotonic() + GRANTED_SECONDS
        if who == NOBODY:
            self._wanting.discard(repository)
        elif not self._has(repository, NOBODY):
            self._wanting.add(repository)

    async def _ask_once(self, origin: Name, who: str, auth: ImageAuth | None) -> str | None:
        """The registry's words if it refuses; None if it gives the image, or that is unknown."""
        wanting = origin.repository in self._wanting
        unheard = "the registry does not answer" if wanting else None
        if time.monotonic() < self._away.get(origin.registry, 0.0):
            return unheard
        key = (origin.repository, who)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(origin, who, auth))
            task.add_done_callback(lambda done: self._answered(key, done))
        await asyncio.wait({task}, timeout=ASK_SECONDS)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        self._away[origin.registry] = time.monotonic() + AWAY_SECONDS
        log.warning("a registry cannot be asked who may have an image", registry=origin.registry, refused=wanting)
        return unheard

    async def _ask(self, origin: Name, who: str, auth: ImageAuth | None) -> str | None:
        """The same, however long it takes. Raises what says nothing about the caller."""
        try:
            if self._engine.podman:
                await self._pull(origin, auth)
            else:
                given = await self._credentials.for_registry(origin.registry, auth)
                await self._engine.call("inspect_distribution", str(origin), auth_config=given)
        except EngineFailure as error:
            return self._refused(origin, 500, error.message)
        except EngineError as error:
            return self._refused(origin, error.status, error.explanation)
        self._note(origin.repository, who)
        self._away.pop(origin.registry, None)
        return None

    def _refused(self, origin: Name, status: int, words: str) -> str | None:
        if status in (401, 403) or any(word in words.lower() for word in _REFUSALS):
            self._wanting.add(origin.repository)
            return words
        if "manifest unknown" in words.lower():
            return None  # the tag has gone from a repository that these credentials may read
        raise EngineFailure(PULL_FAILED, words)

    def _answered(self, key: _Key, task: asyncio.Task[str | None]) -> None:
        self._asking.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the registry gave no answer", repository=key[0], error=str(error))


def _origin(name: Name, image: EngineImage) -> Name | None:
    """What to ask a registry for; None for an image of this engine's own.

    A repository that the image came from has the say. An image that was not named by a tag was named by its id: then
    any of its repositories does.
    """
    sources = [parsed for text in image.digests if (parsed := _parsed(text)) is not None]
    if not sources:
        return None
    if any(source.repository == name.repository for source in sources):
        return name
    tags = [parsed for text in image.tags if (parsed := _parsed(text)) is not None]
    return None if any((tag.repository, tag.tag) == (name.repository, name.tag) for tag in tags) else sources[0]


def _parsed(text: str) -> Name | None:
    try:
        return parse(text)
    except ShoalError:
        return None  # ``<none>@sha256:…``
