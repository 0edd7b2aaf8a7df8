"""`KubeClient`: one request to the API server, on one of a bounded number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3
from msgspec import Struct

from shoal.kit import BoundedThreads
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.failures import ApiUnreachable, KubeApiError
from shoal_k8s.api.limits import TokenBucket
from shoal_k8s.api.objects import ApiStatus

T = TypeVar("T")

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
STRATEGIC_PATCH: Final = "application/strategic-merge-patch+json"
_READS: Final = frozenset({"GET"})
_VERBS: Final = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Resource(Struct, frozen=True):
    """One kind of object, as its URL names it; ``group`` is empty for the core ones."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """The URL path of the collection, or of one object, or of its sub-resource; no namespace means all of them."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        parts += ["namespaces", namespace] if namespace else []
        parts += [part for part in (self.plural, name, sub) if part]
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


class KubeClient:
    """Every request of this server, but for the watches, whose threads are the informers' own.

    Args:
        threads: requests under way at once; more wait.
        reads, writes: how fast they may come.
        timeout: seconds for one answer.
    """

    def __init__(
        self,
        connection: ApiConnection,
        *,
        threads: int = 16,
        reads: TokenBucket | None = None,
        writes: TokenBucket | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.connection = connection
        self._threads = BoundedThreads(threads, "kubernetes")
        self._reads = reads or TokenBucket(0, 0)
        self._writes = writes or TokenBucket(0, 0)
        self._timeout = urllib3.Timeout(connect=min(10.0, timeout), read=timeout)

    def close(self) -> None:
        """Give up the threads, once they are idle, and the connections."""
        self._threads.abandon()
        self.connection.close()

    async def get(self, resource: Resource, namespace: str | None, name: str, kind: type[T]) -> T:
        """One object. Raises KubeApiError, ApiUnreachable."""
        return await self._ask("GET", resource, resource.path(namespace, name), kind)

    async def list(
        self, resource: Resource, namespace: str | None, kind: type[T], query: Mapping[str, str] | None = None
    ) -> T:
        """One page of a list; ``kind`` is a KubeList. Raises KubeApiError, ApiUnreachable."""
        return await self._ask("GET", resource, resource.path(namespace), kind, query=query, verb="list")

    async def create(self, resource: Resource, namespace: str | None, body: object, kind: type[T]) -> T:
        """Raises KubeApiError (``exists``), ApiUnreachable."""
        return await self._ask("POST", resource, resource.path(namespace), kind, body=body)

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: object, kind: type[T]) -> T:
        """PUT; refused with ``conflict`` if the body's resource version is not the present one."""
        return await self._ask("PUT", resource, resource.path(namespace, name), kind, body=body)

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: object,
        kind: type[T],
        *,
        content_type: str = MERGE_PATCH,
    ) -> T:
        """A merge patch; with ``metadata.resourceVersion`` in it, refused with ``conflict`` if that is not the present
        one.
        """
        path = resource.path(namespace, name)
        return await self._ask("PATCH", resource, path, kind, body=body, content_type=content_type)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        grace_seconds: int | None = 0,
        version: str | None = None,
        uid: str | None = None,
        kind: type[T] = msgspec.Raw,  # type: ignore[assignment]  # what is not asked for is not decoded
    ) -> T:
        """The object if it stays for a while, else a ApiStatus.

        Raises KubeApiError (``not_found``; ``conflict`` if it is not of that ``version`` or ``uid``), ApiUnreachable.
        """
        grace = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        wanted = {name: value for name, value in (("resourceVersion", version), ("uid", uid)) if value is not None}
        path = resource.path(namespace, name)
        if wanted:  # the API server looks at the query only where there is no body
            body = {**grace, "preconditions": wanted}
            return await self._ask("DELETE", resource, path, kind, body=body)
        query = {name: str(value) for name, value in grace.items()} or None
        return await self._ask("DELETE", resource, path, kind, query=query)

    async def text(
        self, resource: Resource, namespace: str | None, name: str, sub: str, query: Mapping[str, str] | None = None
    ) -> str:
        """A sub-resource that is text, such as a pod's log. Raises KubeApiError, ApiUnreachable."""
        path = resource.path(namespace, name, sub)
        answer = await self._run("GET", f"get {resource}/{sub}", _with(path, query), None, JSON)
        return answer.decode("utf-8", "replace")

    async def raw(self, method: str, path: str, kind: type[T], *, what: str) -> T:
        """Any other request; ``what`` names it in errors (``get /version``)."""
        return msgspec.json.decode(await self._run(method, what, path, None, JSON), type=kind)

    async def _ask(
        self,
        method: str,
        resource: Resource,
        path: str,
        kind: type[T],
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = JSON,
        verb: str | None = None,
    ) -> T:
        content = None if body is None else msgspec.json.encode(body)
        request = f"{verb or _VERBS[method]} {resource}"
        return msgspec.json.decode(
            await self._run(method, request, _with(path, query), content, content_type), type=kind
        )

    async def _run(self, method: str, request: str, path: str, body: bytes | None, content_type: str) -> bytes:
        await (self._reads if method in _READS else self._writes).take()
        return await self.on_thread(lambda: self._send(method, request, path, body, content_type))

    async def on_thread(self, work: Callable[[], T]) -> T:
        """Run blocking work on one of the client's threads; a caller that is cancelled leaves once it has ended."""
        return await self._threads.run(work)

    def _send(self, method: str, request: str, path: str, body: bytes | None, content_type: str) -> bytes:
        with reaching(request):
            answer = self.connection.open(method, path, body=body, content_type=content_type, timeout=self._timeout)
            content = answer.data
        if answer.status >= 300:
            raise KubeApiError(answer.status, read_status(content), request)
        return content


@contextmanager
def reaching(request: str) -> Iterator[None]:
    """Turn a failure to get an answer into ApiUnreachable."""
    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiUnreachable(request, f"{type(error).__name__}: {error}") from error


def read_status(content: bytes) -> ApiStatus:
    """What the API server said; anything but an ApiStatus (a proxy's page) becomes an empty one."""
    try:
        return msgspec.json.decode(content, type=ApiStatus)
    except msgspec.DecodeError:
        return ApiStatus()


def _with(path: str, query: Mapping[str, Any] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path
