"""Long lists as JSON, some rows at a time: neither memory nor the loop notices how long they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice

from shoal_agent.files.info import FileInfo
from shoal_agent.files.threads import Threads
from shoal_agent.http.response import JSON_TYPE, Answer, Response, Stream, dump

ROWS = 200
"""Rows that are made, and sent, at once."""


async def array(make: Callable[[], Iterator[FileInfo]], threads: Threads) -> Answer:
    """The rows that `make` gives, which is called in a thread, as are its rows. Raises what `make` raises."""
    rows, text, complete = await threads.run(_begin, make)
    headers = [("Content-Type", JSON_TYPE)]
    if complete:
        return Response(text, 200, headers)
    return Stream(_pieces(rows, text, threads), headers=headers)


def _begin(make: Callable[[], Iterator[FileInfo]]) -> tuple[Iterator[FileInfo], bytes, bool]:
    rows = make()
    first = list(islice(rows, ROWS))
    return rows, dump(first), len(first) < ROWS


async def _pieces(rows: Iterator[FileInfo], first: bytes, threads: Threads) -> AsyncIterator[bytes]:
    text = first[:-1]
    while text:
        yield text
        text = await threads.run(_next, rows)
    yield b"]"


def _next(rows: Iterator[FileInfo]) -> bytes:
    batch = list(islice(rows, ROWS))
    return b"," + dump(batch)[1:-1] if batch else b""
