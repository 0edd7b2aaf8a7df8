"""Feed, threads, back-off and masking."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.kit import MASK, Backoff, BoundedThreads, Feed, mask, mask_all, secret_values
from shoal.models.workload import WorkloadGone


def gone(number: int) -> WorkloadGone:
    return WorkloadGone(id=str(number))


async def test_a_feed_hands_everything_to_everyone_until_it_is_closed() -> None:
    feed = Feed()
    first, second = feed.subscribe(), feed.subscribe()
    for number in range(3):
        feed.publish(gone(number))
    feed.close()
    assert [change.id async for change in first] == [change.id async for change in second] == ["0", "1", "2"]


async def test_a_slow_watcher_is_dropped_and_the_others_go_on() -> None:
    feed = Feed(backlog=3)
    slow, quick = feed.subscribe(), feed.subscribe()
    for number in range(5):
        feed.publish(gone(number))
        assert (await anext(quick)).id == str(number)
    assert [change async for change in slow] == []


async def test_threads_are_bounded_and_answer() -> None:
    threads, running, most, lock = BoundedThreads(2, "test"), 0, 0, threading.Lock()
    full = threading.Barrier(2)

    def work(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(30)
        with lock:
            running -= 1
        return number

    assert await asyncio.gather(*(threads.run(work, number) for number in range(8))) == list(range(8))
    assert most == 2
    await threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(work, 1)


async def test_a_cancelled_caller_leaves_when_the_call_has_ended() -> None:
    threads, begun, go_on, ended = BoundedThreads(1, "test"), threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(30)
        ended.set()
        raise ValueError("nobody hears of it")

    call = asyncio.create_task(threads.run(work))
    waiting = asyncio.create_task(threads.run(pytest.fail, "a call that had not begun was made"))
    await asyncio.to_thread(begun.wait, 30)
    waiting.cancel()
    call.cancel()
    await asyncio.wait({waiting})
    assert not call.done()
    go_on.set()
    await asyncio.wait({call})
    assert ended.is_set()
    assert call.cancelled()
    await threads.close()


@given(st.integers(1, 10**6))
def test_a_wait_grows_to_a_bound_and_is_never_nothing(failures: int) -> None:
    backoff = Backoff(0.2, 15.0, jitter=0.5)
    longest = min(0.2 * 2.0 ** min(failures - 1, 60), 15.0)
    assert longest / 2 <= backoff.after(failures) <= longest


def test_a_success_starts_the_waits_anew() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next() for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    backoff.reset()
    assert backoff.next() == 1.0


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("API_KEY", "abc", MASK),
        ("db_password", "abc", MASK),
        ("X", "ghp_" + "a" * 20, MASK),
        ("URL", "postgres://me:hunter2@db/x", f"postgres://{MASK}@db/x"),
        ("PATH", "/usr/bin", "/usr/bin"),
    ],
)
def test_masking(key: str, value: str, shown: str) -> None:
    assert mask(key, value) == shown


def test_secrets_are_masked_wherever_they_stand() -> None:
    hidden = secret_values(
        [("TOKEN", "hunter2"), ("TOKEN_TWO", "hunter2-and-more"), ("PATH", "/usr/bin"), ("KEY", "1")]
    )
    assert hidden == ["hunter2-and-more", "hunter2"]
    assert mask_all("run hunter2-and-more hunter2 1", hidden) == f"run {MASK} {MASK} 1"
