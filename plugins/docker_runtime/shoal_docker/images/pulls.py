"""Pulls: one for all who wait for the same image, platform and credentials.

A waiter that is cancelled leaves the others theirs; when the last one has left, the pull ends at the engine too.
Nothing is tried again here: a registry that refuses, or is away, is reported at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from shoal.errors import EngineFailure, Unavailable
from shoal.models.codes import scoped
from shoal.models.requests import ImageAuth
from shoal.plugin.interfaces import Progress
from shoal_docker.engine import UNAVAILABLE, Engine, EngineError
from shoal_docker.images.credentials import RegistryCredentials
from shoal_docker.images.names import Name
from shoal_docker.images.progress import LOG_SECONDS, REASON, TELL_SECONDS, Pace, PullProgress

log = structlog.get_logger("shoal.docker")

PULL_FAILED: Final = scoped("DOCKER", "SANDBOX_IMAGE_PULL_FAILED")
AT_ONCE: Final = 8
"""Pulls side by side; the engine itself takes three layers at a time."""
STALLED_SECONDS: Final = 600.0
"""A pull of which nothing is heard for so long has failed."""

_Key = tuple[str, str | None, str]


class Flight:
    """One pull and who waits for it."""

    def __init__(self, name: Name) -> None:
        self.progress = PullProgress(str(name))
        self.waiting: list[Progress] = []
        self.task: asyncio.Task[None] | None = None

    def join(self, progress: Progress) -> None:
        """Tell one more how far it is, now and later."""
        self.waiting.append(progress)
        progress(REASON, self.progress.message)

    def tell(self) -> None:
        """Tell all."""
        for progress in self.waiting:
            progress(REASON, self.progress.message)


class Pulls:
    """The pulls of one engine."""

    def __init__(self, engine: Engine, credentials: RegistryCredentials) -> None:
        self._engine = engine
        self._credentials = credentials
        self._flights: dict[_Key, Flight] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    async def pull(self, name: Name, platform: str | None, auth: ImageAuth | None, progress: Progress) -> None:
        """Return once the engine has what the registry has. Raises EngineFailure in the registry's own words."""
        key = (str(name), platform, self._credentials.who(auth))
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = Flight(name)
            flight.task = asyncio.create_task(self._fly(flight, name, platform, auth))
            flight.task.add_done_callback(self._landed(key, flight))
        task = flight.task
        assert task is not None  # noqa: S101 - set one line after it was made
        flight.join(progress)
        try:
            await asyncio.wait({task})
        finally:
            flight.waiting.remove(progress)
            if not flight.waiting and not task.done():
                self._forget(key, flight)
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            raise Unavailable(UNAVAILABLE, "The server is stopping; the image was not pulled.")
        task.result()

    async def stop(self) -> None:
        """Ends every pull; who waits for one gets an error."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fly(self, flight: Flight, name: Name, platform: str | None, auth: ImageAuth | None) -> None:
        async with self._places:
            started = asyncio.get_running_loop().time()
            log.info("pulling image", image=str(name), platform=platform)
            try:
                await self._follow(flight, name, platform, auth)
            except EngineError as error:
                raise _failure(name, error.explanation) from None
            except TimeoutError:
                raise _failure(name, f"nothing was heard for {STALLED_SECONDS:g} seconds") from None
            if flight.progress.mismatch:
                raise _failure(name, flight.progress.mismatch.removeprefix("WARNING: "))
            seconds = round(asyncio.get_running_loop().time() - started, 3)
            log.info("image pulled", image=str(name), bytes=flight.progress.received, seconds=seconds)

    async def _follow(self, flight: Flight, name: Name, platform: str | None, auth: ImageAuth | None) -> None:
        header = await self._credentials.header(name.registry, auth)
        params = {"fromImage": name.short, "tag": name.digest or name.tag}
        if platform is not None:
            params["platform"] = platform
        told, logged = Pace(TELL_SECONDS), Pace(LOG_SECONDS)
        logged.due()  # its beginning has been logged
        stream = self._engine.stream("/images/create", method="POST", params=params, headers=header)
        async with aclosing(stream) as lines:
            while True:
                async with asyncio.timeout(STALLED_SECONDS):
                    line = await anext(lines, None)
                if line is None:
                    return
                if words := _error_in(line):
                    raise _failure(name, words)
                flight.progress.note(line)
                if told.due():
                    flight.tell()
                if logged.due():
                    log.info("pulling image", image=str(name), progress=flight.progress.message)

    def _landed(self, key: _Key, flight: Flight) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            self._forget(key, flight)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("image not pulled", image=key[0], error=str(error))

        return done

    def _forget(self, key: _Key, flight: Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


def _failure(name: Name, words: str) -> EngineFailure:
    return EngineFailure(PULL_FAILED, f"The image {name} could not be pulled: {_plain(words)}")


def _error_in(line: dict[str, Any]) -> str:
    """What the registry or the engine complains of in the middle of a stream that began well."""
    detail = line.get("errorDetail")
    words = detail.get("message") if isinstance(detail, dict) else None
    return str(words or line.get("error") or "")


def _plain(words: str) -> str:
    """The words alone, where an engine wraps them in JSON once more."""
    try:
        inner = json.loads(words)
    except ValueError:
        return words
    return str(inner.get("message") or words) if isinstance(inner, dict) else words
