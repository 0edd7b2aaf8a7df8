"""Group commit: callers share a transaction without sharing each other's failures."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.errors import Conflict, Unavailable
from shoal_sqlite.writer import MAX_PENDING, Work, Writer


class Numbers:
    """A database with one table, and a deferred constraint that only a COMMIT notices."""

    def __init__(self, path: Path, commits: list[str]) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA foreign_keys = ON")
        self.connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY)")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS notes (n INTEGER REFERENCES numbers DEFERRABLE INITIALLY DEFERRED)"
        )
        self.connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)

    def tend(self) -> None:
        """There is nothing to tend."""

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def commits() -> list[str]:
    """One entry for each COMMIT that was carried out."""
    return []


@pytest.fixture
async def writer(tmp_path: Path, commits: list[str]) -> AsyncIterator[Writer]:
    writer = Writer(lambda: Numbers(tmp_path / "numbers.db", commits))
    await writer.start()
    yield writer
    await writer.stop()


class Barrier:
    """Holds the writer's thread, so that what is called meanwhile falls into one batch."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._entered = asyncio.Event()
        self._released = threading.Event()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()

        def hold(_: sqlite3.Connection) -> None:
            loop.call_soon_threadsafe(self._entered.set)
            assert self._released.wait(60)

        self._held = asyncio.ensure_future(self._writer.run(hold))
        await self._entered.wait()

    async def __aexit__(self, *_: object) -> None:
        self._released.set()
        await self._held


def insert(number: int, *, clause: str = "") -> Work[int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute(f"INSERT {clause} INTO numbers (n) VALUES (?)", (number,))  # noqa: S608 - a test's constant
        return number

    return work


def dangling_note(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes (n) VALUES (-1)")


async def numbers(writer: Writer) -> list[int]:
    return await writer.run(lambda connection: [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")])


async def together(writer: Writer, *works: Work[object]) -> list[object]:
    """The outcome of calls that share one batch."""
    async with Barrier(writer):
        calls = [asyncio.ensure_future(writer.run(work)) for work in works]
        await asyncio.sleep(0)
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_calls_that_wait_share_one_commit(writer: Writer, commits: list[str]) -> None:
    outcome = await together(writer, *(insert(n) for n in range(100)))
    assert outcome == list(range(100))
    assert len(commits) == 2, "one for the call that held the thread, one for all the others"


async def test_a_failing_statement_fails_only_its_own_caller(writer: Writer) -> None:
    one, twin, two = await together(writer, insert(1), insert(1), insert(2))
    assert (one, two) == (1, 2)
    assert isinstance(twin, Conflict)
    assert await numbers(writer) == [1, 2]


async def test_a_call_that_fails_half_way_leaves_nothing(writer: Writer) -> None:
    def half(connection: sqlite3.Connection) -> None:
        insert(7)(connection)
        raise KeyError("a bug")

    bug, other = await together(writer, half, insert(8))
    assert isinstance(bug, KeyError)
    assert other == 8
    assert await numbers(writer) == [8]


async def test_a_lost_transaction_fails_only_the_call_that_lost_it(writer: Writer) -> None:
    await writer.run(insert(1))
    two, lost, three = await together(writer, insert(2), insert(1, clause="OR ROLLBACK"), insert(3))
    assert (two, three) == (2, 3)
    assert isinstance(lost, Conflict)
    assert await numbers(writer) == [1, 2, 3]


async def test_a_failing_commit_fails_all_in_it_and_nobody_later(writer: Writer) -> None:
    outcome = await together(writer, insert(1), dangling_note, insert(2))
    assert [type(error) for error in outcome] == [Conflict] * 3
    assert len({id(error) for error in outcome}) == 3, "an exception that two tasks raise mixes their tracebacks"
    assert await numbers(writer) == []
    await writer.run(insert(3))
    assert await numbers(writer) == [3]


async def test_a_cancelled_caller_does_not_disturb_its_batch(writer: Writer) -> None:
    async with Barrier(writer):
        calls = [asyncio.ensure_future(writer.run(insert(n))) for n in range(5)]
        await asyncio.sleep(0)
        calls[2].cancel()
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert [n for n in outcome if isinstance(n, int)] == [0, 1, 3, 4]
    assert isinstance(outcome[2], asyncio.CancelledError)
    assert await numbers(writer) == [0, 1, 2, 3, 4]


async def test_callers_beyond_the_bound_wait_and_cancelling_them_undoes_their_call(writer: Writer) -> None:
    async with Barrier(writer):
        calls = [asyncio.ensure_future(writer.run(insert(n))) for n in range(MAX_PENDING + 10)]
        await asyncio.sleep(0)
        for call in calls[-10:]:
            call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await numbers(writer) == list(range(MAX_PENDING)), "the barrier, 511 at once, and one that waited its turn"


async def test_every_permit_comes_back(writer: Writer) -> None:
    for _ in range(3):
        works = [insert(n) for n in range(MAX_PENDING + 10)]
        await asyncio.gather(*(writer.run(work) for work in works), return_exceptions=True)
    assert len(await numbers(writer)) == MAX_PENDING + 10


async def test_stopping_commits_what_was_accepted_and_refuses_the_rest(writer: Writer, tmp_path: Path) -> None:
    async with Barrier(writer):
        calls = [asyncio.ensure_future(writer.run(insert(n))) for n in range(MAX_PENDING + 5)]
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(writer.stop())
        await asyncio.sleep(0)
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    await stopping
    accepted = [n for n in outcome if isinstance(n, int)]
    refused = [error for error in outcome if isinstance(error, Unavailable)]
    assert accepted == list(range(MAX_PENDING - 1))
    assert len(refused) == 6
    connection = sqlite3.connect(tmp_path / "numbers.db")
    assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (MAX_PENDING - 1,)
    connection.close()


async def test_a_writer_starts_again_after_a_stop(writer: Writer) -> None:
    await writer.run(insert(1))
    await writer.stop()
    await writer.stop()
    await writer.start()
    assert await numbers(writer) == [1]
