"""A thread that lists, then watches, for ever, and reports what it saw.

It lists page by page, then watches from the list's version. The first list is consistent; those at intervals come from
the API server's watch cache. A stream that ends or breaks is taken up where it was; a
version that the API server no longer has (410) means a new list. At intervals it lists anyway, to repair what a stream
may have lost. An idle watch costs a request each time its time is up, at most one a minute on average, lists included.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final, Generic, Protocol, TypeVar
from urllib.parse import urlencode

import msgspec
import structlog
import urllib3

from shoal.errors import ShoalError
from shoal.kit import Backoff
from shoal_k8s.api.client import JSON, Resource, reaching, read_status
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.failures import KubeApiError
from shoal_k8s.api.objects import KubeList
from shoal_k8s.informer.stream import WatchEvent, events

log = structlog.get_logger("shoal.k8s")

PAGE: Final = 500
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 30.0
"""Seconds between two tries after a failure (docs/wire/kubernetes.md section 21)."""
SILENCE: Final = 15.0
"""Seconds after a watch's own end for which its connection may stay silent before it counts as broken."""

T = TypeVar("T")


class Listener(Protocol[T]):
    """Takes what the reflector reports; called on its thread."""

    def listed(self, objects: list[T], version: str) -> None:
        """Everything that there is at that version, in place of all that was reported before."""
        ...

    def opened(self) -> None:
        """The API server answers again with what changes; nothing may change for long."""
        ...

    def changed(self, event: WatchEvent[T]) -> None:
        """One change since."""
        ...

    def lost(self, error: Exception) -> None:
        """Nothing is heard for now; called for each failed try."""
        ...


class Reflector(Generic[T]):
    """Follows one kind of object.

    Args:
        kind: the Struct that an object is decoded into.
        query: selectors (``labelSelector``, ``fieldSelector``).
        resync: seconds between two lists.
        watch_timeout: seconds that a watch is asked to last, at least; up to twice as long, so that replicas spread.
    """

    def __init__(
        self,
        connection: ApiConnection,
        resource: Resource,
        namespace: str | None,
        kind: type[T],
        listener: Listener[T],
        *,
        query: Mapping[str, str],
        resync: float,
        watch_timeout: float,
    ) -> None:
        self._connection = connection
        self._resource = resource
        self._path = resource.path(namespace)
        self._decoder = msgspec.json.Decoder(kind)
        self._pages = msgspec.json.Decoder(KubeList[kind])  # type: ignore[valid-type]  # a type made at run time
        self._listener = listener
        self._query = dict(query)
        self._resync = resync
        self._watch_timeout = watch_timeout
        self._version: str | None = None
        self._listed_at = 0.0
        self._stopped = threading.Event()
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._thread = threading.Thread(target=self._run, name=f"informer {resource}", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the watch under way and the thread; blocks until it has ended, bounded."""
        self._stopped.set()
        answer = self._answer
        if answer is not None:
            _hang_up(answer)
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def _run(self) -> None:
        backoff = Backoff(BACKOFF_FIRST, BACKOFF_MAX, jitter=0.5)
        version: str | None = None
        while not self._stopped.is_set():
            begun = time.monotonic()
            try:
                version = self._follow(version)
                if time.monotonic() - begun >= BACKOFF_FIRST:
                    backoff.reset()
                    continue
            except Exception as error:
                if self._stopped.is_set():
                    return
                version = self._version
                if isinstance(error, KubeApiError) and error.expired:
                    log.info("watch expired, listing again", resource=str(self._resource))
                    version = None
                    continue
                self._note(error)
            self._stopped.wait(backoff.next())

    def _follow(self, version: str | None) -> str:
        """One list if it is due, and one watch to its end; the version that was reached."""
        if version is None or time.monotonic() - self._listed_at >= self._resync:
            version = self._list() if version is None else self._list_again(version)
            self._listed_at = time.monotonic()
        self._version = version
        for event in self._watch(version):
            self._version = version = event.version or version
            if event.object is not None:
                self._listener.changed(event)
        return version

    def _note(self, error: Exception) -> None:
        if isinstance(error, KubeApiError) and error.not_found:
            self._listener.listed([], "")  # the kind is not installed: there are none
        elif not isinstance(error, (KubeApiError, ShoalError)):
            log.error("informer failed in an unforeseen way", resource=str(self._resource), exc_info=error)
        self._listener.lost(error)

    def _list(self) -> str:
        """Every page; returns the version to watch from."""
        objects: list[T] = []
        token: str | None = None
        while True:
            query = {**self._query, "limit": str(PAGE), **({"continue": token} if token else {})}
            page = self._pages.decode(self._get("list", query, urllib3.Timeout(connect=10.0, read=60.0)).data)
            objects += page.items or []
            token = page.metadata.continue_
            if token is None:
                self._listener.listed(objects, page.metadata.resource_version)
                return page.metadata.resource_version

    def _list_again(self, seen: str) -> str:
        """The same from the memory of the API server, which its store does not feel; from the store only where that
        memory is older than what was seen.
        """
        query = {**self._query, "resourceVersion": "0"}
        content = self._get("list", query, urllib3.Timeout(connect=10.0, read=60.0)).data
        page = msgspec.json.decode(content, type=KubeList[msgspec.Raw])
        version = page.metadata.resource_version
        if not (version.isdigit() and seen.isdigit() and int(version) >= int(seen)):
            return self._list()
        objects = [self._decoder.decode(raw) for raw in page.items or []]  # one by one: other threads run between
        self._listener.listed(objects, version)
        return version

    def _watch(self, version: str) -> Iterator[WatchEvent[T]]:
        lasting = self._watch_timeout * random.uniform(1.0, 2.0)  # noqa: S311 - spreads watches, hides nothing
        query = {
            **self._query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(int(lasting)),
        }
        answer = self._get("watch", query, urllib3.Timeout(connect=10.0, read=lasting + SILENCE))
        self._answer = answer
        self._listener.opened()
        try:
            with reaching(f"watch {self._resource}"):
                yield from events(answer, self._decoder, f"watch {self._resource}")
        finally:
            self._answer = None
            _hang_up(answer)
            answer.close()

    def _get(self, verb: str, query: Mapping[str, str], timeout: urllib3.Timeout) -> urllib3.BaseHTTPResponse:
        request = f"{verb} {self._resource}"
        with reaching(request):
            path = f"{self._path}?{urlencode(query)}"
            answer = self._connection.open("GET", path, body=None, content_type=JSON, timeout=timeout)
            if answer.status >= 300:
                raise KubeApiError(answer.status, read_status(answer.data), request)
        return answer


def _hang_up(answer: urllib3.BaseHTTPResponse) -> None:
    """Shut the connection down, which wakes the thread that reads from it; closing is that thread's to do.

    The plain socket's method: that of a TLS socket takes the session away from under the reader.
    """
    sock: socket.socket | None = getattr(answer.connection, "sock", None)
    if sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
