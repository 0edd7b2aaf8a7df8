"""One container engine, spoken to through docker's low-level client on bounded threads.

Everything else of the plugin says `Engine.call` with the name of an `APIClient` method, and never sees a thread, a
socket or an exception of the SDK's::

    the engine cannot be reached            → Unavailable        503  DOCKER::ENGINE_UNAVAILABLE
    it did not answer within api_timeout    → EngineTimeout      503  DOCKER::ENGINE_TIMEOUT, an Unavailable
    it answered with an error               → EngineError        its status and its own words, for callers to branch on

A coroutine that is cancelled in the middle of a call leaves only when the engine has answered, so that nothing of it
can show up later.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import requests
from docker import APIClient, errors
from docker.types import CancellableStream
from docker.utils import kwargs_from_env, version_lt

from shoal.errors import EngineFailure, Unavailable
from shoal.kit import BoundedThreads
from shoal.kit.threads import finish

T = TypeVar("T")

UNAVAILABLE: Final = "DOCKER::ENGINE_UNAVAILABLE"
TIMEOUT: Final = "DOCKER::ENGINE_TIMEOUT"
STREAMS: Final = 32
"""Streams open at once: one of events, and one for each pull under way."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class EngineError(Exception):
    """The engine answered with an error. Internal to the plugin: see `failure` for the errors that callers get.

    Attributes:
        status: the engine's HTTP status; 400 where the SDK refused on the engine's behalf (too old for an option).
        explanation: the engine's own words.
    """

    def __init__(self, status: int, explanation: str) -> None:
        super().__init__(f"{status}: {explanation}")
        self.status = status
        self.explanation = explanation

    def failure(self, code: str, doing: str) -> EngineFailure:
        """The error for the API: ``doing`` and the engine's own words, as in ``could not start: port is taken``."""
        return EngineFailure(code, f"{doing}: {self.explanation}")


class EngineTimeout(Unavailable):
    """The engine took longer than ``docker.api_timeout`` over one call; whether it did the work is not known."""


class Engine:
    """One engine.

    Args:
        host: as in DOCKER_HOST; None leaves it to the environment, then to the default socket. DOCKER_TLS_VERIFY and
            DOCKER_CERT_PATH are honoured either way.
        timeout: seconds for one call.
        threads: calls side by side; more wait, first come first served.

    Attributes:
        version, info: the engine's answers to ``GET /version`` and ``GET /info`` at `start`.
        os, arch: of the engine, in an image's words (``linux``, ``amd64``).
        podman: it is Podman behind Docker's API.
        rootless: it runs as an ordinary user.
        takes_platform: a create may say which platform of an image it wants.
        remote: it may be on another machine: neither its files nor its loopback are this one's.
        away: why the engine could not be reached when it was last called; None once it has answered.
    """

    def __init__(self, host: str | None, *, timeout: float, threads: int) -> None:
        self.version: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self.os = self.arch = ""
        self.podman = self.rootless = self.takes_platform = False
        self.address = host or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
        self.remote = not self.address.startswith(("unix:", "http+unix:", "/"))
        self.away: Unavailable | None = None
        self._timeout, self._threads = timeout, threads
        self._client: APIClient | None = None
        self._calls: BoundedThreads | None = None
        self._streams: BoundedThreads | None = None

    async def start(self) -> None:
        """Connect and learn what the engine is. Raises Unavailable."""
        self._calls = BoundedThreads(self._threads, "docker-call")
        self._streams = BoundedThreads(STREAMS, "docker-stream")
        self._client = await self._calls.run(self._connect)
        self.version, self.info = await asyncio.gather(self.call("version"), self.call("info"))
        self.os = str(self.version.get("Os") or self.info.get("OSType") or "").lower()
        self.arch = architecture(str(self.version.get("Arch") or self.info.get("Architecture") or ""))
        parts = [str(part.get("Name", "")) for part in self.version.get("Components") or []]
        self.podman = any(name.startswith("Podman") for name in parts)
        self.takes_platform = not version_lt(self._client.api_version, "1.41")
        security = [str(option) for option in self.info.get("SecurityOptions") or []]
        self.rootless = bool(self.info.get("Rootless")) or any("name=rootless" in option for option in security)

    async def stop(self) -> None:
        """Wait for the calls under way, then let go of the connections."""
        calls, streams, client = self._calls, self._streams, self._client
        self._calls = self._streams = self._client = None
        for pool in (calls, streams):
            if pool is not None:
                await pool.close()
        if client is not None:
            client.close()

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        """What `docker.APIClient` answers to ``method``. Raises EngineError, EngineTimeout and Unavailable."""
        if self._client is None or self._calls is None:
            raise Unavailable(UNAVAILABLE, "The connection to the container engine is closed.")
        work: Callable[..., Any] = getattr(self._client, method)
        return await self._calls.run(self._translated, work, *args, **kwargs)

    async def run(self, work: Callable[[APIClient], T]) -> T:
        """What ``work`` answers, all of it on one thread: for answers that are read in parts. Raises as `call` does."""
        if self._client is None or self._calls is None:
            raise Unavailable(UNAVAILABLE, "The connection to the container engine is closed.")
        return await self._calls.run(self._translated, work, self._client)

    async def stream(
        self,
        path: str,
        *,
        method: str = "GET",
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON objects of a streamed answer, one by one, each read only when it is asked for.

        Leave it through ``contextlib.aclosing``: that ends the request at the engine too. ``path`` is without the API
        version, as in ``/events``. Raises EngineError, and Unavailable if the stream breaks off.
        """
        if self._client is None or self._streams is None:
            raise Unavailable(UNAVAILABLE, "The connection to the container engine is closed.")
        client, pool = self._client, self._streams
        url = f"{client.base_url}/v{client.api_version}{path}"
        asked = pool.submit(self._translated, _ask, client, method, url, params, headers)
        try:
            response = await finish(asked)
        except asyncio.CancelledError:
            if asked.done() and not asked.cancelled() and asked.exception() is None:
                asked.result().close()
            raise
        lines = response.iter_lines(chunk_size=65536)
        try:
            while True:
                line = pool.submit(self._translated, next, lines, None)
                item = await asyncio.wrap_future(line)
                if item is None:
                    return
                if item:
                    yield json.loads(item)
        finally:
            CancellableStream(lines, response).close()  # wakes a thread that still reads
            await asyncio.shield(asyncio.ensure_future(pool.run(response.close)))

    def _connect(self) -> APIClient:
        settings = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": self.address})
        client = self._translated(
            APIClient,
            version="auto",
            timeout=self._timeout,
            max_pool_size=self._threads + STREAMS,
            use_ssh_client=self.address.startswith("ssh:"),
            **settings,
        )
        # No proxy leads to a socket, and looking for one in the environment is an eighth of a call's cost.
        client.trust_env = self.remote
        return client

    def _translated(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
        with self._errors():
            answer = work(*args, **kwargs)
        self.away = None
        return answer

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The SDK's exceptions in this module's terms."""
        try:
            yield
        except errors.APIError as error:
            self.away = None
            status = error.response.status_code if error.response is not None else 500
            raise EngineError(status, str(error.explanation or error).strip()) from None
        except requests.Timeout:
            message = f"The container engine did not answer within {self._timeout:g} seconds."
            raise EngineTimeout(TIMEOUT, message) from None
        except errors.InvalidVersion as error:
            raise EngineError(400, str(error)) from None
        except (requests.RequestException, OSError) as error:
            raise self._away(error) from None
        except errors.DockerException as error:
            if self._client is None:  # while connecting the SDK wraps whatever went wrong
                raise self._away(error) from None
            raise EngineError(500, str(error)) from None

    def _away(self, error: Exception) -> Unavailable:
        message = f"The container engine at {self.address} cannot be reached: {_reason(error)}."
        self.away = Unavailable(UNAVAILABLE, message)
        return self.away


def architecture(name: str) -> str:
    """A machine's or an image's name of an architecture, as images spell it."""
    return _ARCHITECTURES.get(name.lower(), name.lower())


def _ask(
    client: APIClient, method: str, url: str, params: Mapping[str, str] | None, headers: Mapping[str, str] | None
) -> requests.Response:
    connect = client.timeout
    response = client.request(method, url, params=params, headers=headers, stream=True, timeout=(connect, None))
    if not response.ok:
        with response:
            refuse(response)
    return response


def refuse(response: requests.Response) -> None:
    """Raise the SDK's error for an answer that was not got through one of its own methods."""
    errors.create_api_error_from_http_exception(_http_error(response))


def _http_error(response: requests.Response) -> requests.HTTPError:
    return requests.HTTPError(f"{response.status_code} from the engine", response=response)


def _reason(error: BaseException) -> str:
    """The innermost cause that says something, without the SDK's wrapping."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = error.__cause__ or error.__context__
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        if inner is None:
            break
        error = inner
    return str(error).rstrip(".") or type(error).__name__
