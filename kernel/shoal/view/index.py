"""The index: by id, by state, by metadata, by creation time.

Everything happens on the event loop, so a reader never sees half a change. A page costs the page: each state and each
metadata pair has its own sorted list, and only a filter that combines several walks the smallest of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from itertools import islice

from sortedcontainers import SortedList

from shoal.models.sandbox import SandboxRecord
from shoal.view.entry import Entry
from shoal.view.listing import ListQuery, Page

Key = tuple[float, str]


class View:
    """All sandboxes that this server knows of."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._all: SortedList[Key] = SortedList()
        self._states: dict[str, SortedList[Key]] = {}
        self._metadata: dict[tuple[str, str], SortedList[Key]] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry at this moment, in no particular order."""
        return iter(list(self._entries.values()))

    def get(self, sandbox_id: str) -> Entry | None:
        """The entry, or None if there is no such sandbox."""
        return self._entries.get(sandbox_id)

    def put(self, entry: Entry) -> None:
        """Insert or replace, and wake whoever waits for a change of it. A hidden one is on no list."""
        record, key = entry.record, entry.sort_key
        old = self._entries.get(record.id)
        self._entries[record.id] = entry
        if old is not None and old.record.hidden:
            old = None
        elif old is not None and record.hidden:
            self._unlist(old)
        if record.hidden:
            self._wake(record.id)
            return
        if old is None:
            self._all.add(key)
        if old is None or old.record is not record or old.doubt is not entry.doubt:
            before = set(_facets(old)) if old is not None else set()
            after = set(_facets(entry))
            for index, facet in before - after:
                self._drop(index, facet, key)
            for index, facet in after - before:
                self._lists(index).setdefault(facet, SortedList()).add(key)
        self._wake(record.id)

    def remove(self, sandbox_id: str) -> None:
        """Forget it; absent is fine."""
        entry = self._entries.pop(sandbox_id, None)
        if entry is None:
            return
        if not entry.record.hidden:
            self._unlist(entry)
        self._wake(sandbox_id)

    def page(self, query: ListQuery, sees: Callable[[SandboxRecord], bool] | None = None) -> Page:
        """The page of ``query``, newest first; with ``sees`` of those records alone, which costs a look at each."""
        sources = self._sources(query)
        keys: Iterable[Key]
        if sees is not None:
            found = (self._entries[key[1]] for key in merge(*sources))
            seen = [entry for entry in found if _matches(entry, query) and sees(entry.record)]
            return Page(items=seen[query.start : query.start + query.page_size], total=len(seen))
        if len(sources) == 1 and len(query.metadata) + (query.states is not None) <= 1:
            keys = sources[0].islice(query.start, query.start + query.page_size)
            total = len(sources[0])
        elif not query.metadata:
            keys = islice(merge(*sources), query.start, query.start + query.page_size)
            total = sum(map(len, sources))
        else:
            matching = [key for key in sources[0] if _matches(self._entries[key[1]], query)]
            keys, total = matching[query.start : query.start + query.page_size], len(matching)
        return Page(items=[self._entries[key[1]] for key in keys], total=total)

    async def until(self, sandbox_id: str, done: Callable[[Entry], bool], timeout: float) -> Entry | None:  # noqa: ASYNC109
        """Wait until ``done`` is true of the entry, it is gone, or ``timeout`` seconds have passed.

        Returns the entry as it then is, None if it is gone.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            entry = self._entries.get(sandbox_id)
            left = deadline - loop.time()
            if entry is None or left <= 0 or done(entry):
                return entry
            change: asyncio.Future[None] = loop.create_future()
            self._waiters.setdefault(sandbox_id, []).append(change)
            try:
                await asyncio.wait((change,), timeout=left)
            finally:
                self._forget(sandbox_id, change)

    def _sources(self, query: ListQuery) -> list[SortedList[Key]]:
        """Sorted lists that hold every match: one per state, or with metadata the shortest that will do alone."""
        empty: SortedList[Key] = SortedList()
        if query.states is None:
            found = [self._all]
        else:
            found = [self._states[state] for state in sorted(query.states) if state in self._states] or [empty]
        if not query.metadata:
            return found
        pairs = [self._metadata.get(pair, empty) for pair in query.metadata.items()]
        return [min(pairs + found if len(found) == 1 else pairs, key=len)]

    def _lists(self, index: str) -> dict[object, SortedList[Key]]:
        return self._states if index == "state" else self._metadata  # type: ignore[return-value]  # keys differ by index

    def _unlist(self, entry: Entry) -> None:
        key = entry.sort_key
        self._all.remove(key)
        for index, facet in _facets(entry):
            self._drop(index, facet, key)

    def _drop(self, index: str, facet: object, key: Key) -> None:
        lists = self._lists(index)
        lists[facet].remove(key)
        if not lists[facet]:
            del lists[facet]

    def _wake(self, sandbox_id: str) -> None:
        for waiter in self._waiters.pop(sandbox_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    def _forget(self, sandbox_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(sandbox_id)
        if waiters is not None and waiter in waiters:
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[sandbox_id]


def _facets(entry: Entry) -> Iterator[tuple[str, object]]:
    """What an entry can be found by: its state in lower case, and each metadata pair."""
    yield "state", entry.state.lower()
    for pair in entry.record.metadata.items():
        yield "metadata", pair


def _matches(entry: Entry, query: ListQuery) -> bool:
    record = entry.record
    if query.states is not None and entry.state.lower() not in query.states:
        return False
    return all(record.metadata.get(key) == value for key, value in query.metadata.items())
