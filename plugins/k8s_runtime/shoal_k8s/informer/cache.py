"""`Informer`: the objects of one kind, by name and by index, kept true by a reflector.

Everything here lives on the event loop; the reflector's thread hands over batches. Reads cost a dictionary look-up and
never ask the API server. A write that this server made is put in at once (`put`), so that nobody reads his own past.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Generic, Protocol, TypeVar

import structlog
from msgspec import Struct

from shoal_k8s.api.client import Resource
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.failures import ApiUnreachable, KubeApiError
from shoal_k8s.api.objects import Meta
from shoal_k8s.informer.reflector import Reflector
from shoal_k8s.informer.stream import WatchEvent

log = structlog.get_logger("shoal.k8s")


class KubeObject(Protocol):
    """What an object must have to be followed."""

    @property
    def metadata(self) -> Meta:
        """Its name, namespace and version."""
        ...


T = TypeVar("T", bound=KubeObject)
Key = tuple[str, str]


class Changed(Struct, Generic[T], frozen=True):
    """An object as it now is."""

    object: T


class DeletedObject(Struct, Generic[T], frozen=True):
    """An object that is not there any more, as it was last seen."""

    object: T


Handler = Callable[[Changed[T] | DeletedObject[T]], None]
Indexer = Callable[[T], Iterable[str]]
RESYNC: Final = 300.0
START_SECONDS: Final = 20.0
"""How long the first list may be kept waiting; whoever started the server had better hear soon."""
WATCH_TIMEOUT: Final = 60.0


class Informer(Generic[T]):
    """One kind of object of one namespace (or of all).

    Args:
        kind: the Struct that an object is decoded into.
        query: selectors (``labelSelector``, ``fieldSelector``).
        index: the keys under which `by` finds an object, such as a sandbox id in a label.
        resync, watch_timeout: seconds (docs/wire/kubernetes.md section 2).
        first_list: seconds that the first list may take.
    """

    def __init__(
        self,
        connection: ApiConnection,
        resource: Resource,
        namespace: str | None,
        kind: type[T],
        *,
        query: Mapping[str, str] | None = None,
        index: Indexer[T] = lambda _: (),
        resync: float = RESYNC,
        watch_timeout: float = WATCH_TIMEOUT,
        first_list: float = START_SECONDS,
    ) -> None:
        self._first_list = first_list
        self.resource = resource
        self._objects: dict[Key, T] = {}
        self._written: set[Key] = set()
        self._index = index
        self._indexed: dict[str, dict[Key, T]] = {}
        self._handlers: list[Handler[T]] = []
        self._synced = asyncio.Event()
        self._listed_once = False
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reflector = Reflector(
            connection,
            resource,
            namespace,
            kind,
            _Bridge(self),
            query=query or {},
            resync=resync,
            watch_timeout=watch_timeout,
        )

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    async def start(self) -> None:
        """Begin; returns once everything that there is was listed.

        Raises what keeps it from listing: at once if it is a right, else if it did not pass in ``first_list`` seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._reflector.start()
        try:
            async with asyncio.timeout(self._first_list):
                await self._synced.wait()
        except TimeoutError:
            raise self._error or ApiUnreachable(
                f"list {self.resource}", f"no list in {self._first_list:.0f} s"
            ) from None
        if not self._listed_once and self._error is not None:
            raise self._error

    async def stop(self) -> None:
        """End; what was seen stays readable."""
        await asyncio.to_thread(self._reflector.stop)

    @property
    def error(self) -> Exception | None:
        """Why nothing is heard just now; None while all is well."""
        return self._error

    def get(self, namespace: str, name: str) -> T | None:
        """The object of that name, as last seen."""
        return self._objects.get((namespace, name))

    def by(self, key: str) -> list[T]:
        """The objects that the indexer put under ``key``."""
        return list(self._indexed.get(key, {}).values())

    def subscribe(self, handler: Handler[T]) -> None:
        """Have ``handler`` called on the loop with every change; it must return at once."""
        self._handlers.append(handler)

    def put(self, thing: T) -> None:
        """What the API server answered to a write of ours; older than what was seen, it is ignored."""
        held = self._objects.get(_key(thing))
        if held is None or _newer(thing, held):
            self._keep(thing)
            self._written.add(_key(thing))

    # --- from the reflector's thread, on the loop --------------------------------------------------------------------

    def _listed(self, objects: list[T], version: str) -> None:
        """What this server wrote while the list was under way is newer than the list; the watch will report it."""
        self._error = None
        newer = {key for key in self._written if _is_after(self._objects[key], version)}
        self._written.clear()
        present = {_key(thing) for thing in objects}
        for key in [key for key in self._objects if key not in present | newer]:
            self._drop(self._objects[key])
        for thing in objects:
            held = self._objects.get(_key(thing))
            changed = held is None or held.metadata.resource_version != thing.metadata.resource_version
            if changed and _key(thing) not in newer:
                self._keep(thing)
        self._listed_once = True
        self._synced.set()

    def _opened(self) -> None:
        self._error = None

    def _event(self, event: WatchEvent[T]) -> None:
        self._error = None
        if event.object is None:
            return
        held = self._objects.get(_key(event.object))
        if held is not None and not _newer(event.object, held):
            return  # from before a write of this server's
        if event.type == "DELETED":
            self._drop(event.object)
        else:
            self._keep(event.object)

    def _lost(self, error: Exception) -> None:
        if self._error is None:
            log.warning("informer lost its stream", resource=str(self.resource), error=str(error))
        self._error = error
        if isinstance(error, KubeApiError) and error.forbidden:
            self._synced.set()  # it will not pass by itself

    def _keep(self, thing: T) -> None:
        key = _key(thing)
        held = self._objects.get(key)
        if held is not None:
            self._unindex(key, held)
        self._objects[key] = thing
        for name in self._index(thing):
            self._indexed.setdefault(name, {})[key] = thing
        self._notify(Changed(thing))

    def _drop(self, thing: T) -> None:
        key = _key(thing)
        held = self._objects.pop(key, None)
        self._written.discard(key)
        if held is not None:
            self._unindex(key, held)
            self._notify(DeletedObject(held))

    def _unindex(self, key: Key, held: T) -> None:
        for name in self._index(held):
            found = self._indexed.get(name)
            if found is not None and found.pop(key, None) is not None and not found:
                del self._indexed[name]

    def _notify(self, change: Changed[T] | DeletedObject[T]) -> None:
        for handler in self._handlers:
            try:
                handler(change)
            except Exception:
                log.exception("a listener of an informer failed", resource=str(self.resource))

    def hand_over(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the loop; called on the reflector's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(work)


class _Bridge(Generic[T]):
    """Carries what the reflector's thread reports to the loop; a burst of events costs one wake-up."""

    def __init__(self, informer: Informer[T]) -> None:
        self._informer = informer
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] = []

    def listed(self, objects: list[T], version: str) -> None:
        self._send(lambda: self._informer._listed(objects, version))

    def opened(self) -> None:
        self._send(self._informer._opened)

    def changed(self, event: WatchEvent[T]) -> None:
        self._send(lambda: self._informer._event(event))

    def lost(self, error: Exception) -> None:
        self._send(lambda: self._informer._lost(error))

    def _send(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._waiting.append(work)
            first = len(self._waiting) == 1
        if first:
            self._informer.hand_over(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for work in waiting:
            work()


def _key(thing: KubeObject) -> Key:
    return thing.metadata.namespace, thing.metadata.name


def _newer(thing: KubeObject, held: KubeObject) -> bool:
    return not _is_after(held, thing.metadata.resource_version)


def _is_after(thing: KubeObject, version: str) -> bool:
    """Versions are opaque by contract, and numbers on every API server there is: only then are they compared."""
    mine = thing.metadata.resource_version
    return mine.isdigit() and version.isdigit() and int(mine) > int(version)
