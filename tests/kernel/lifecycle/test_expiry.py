"""The expiry scheduler: never early, never twice, nothing lost; whatever the clock and the callee do."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.waiting import until

from shoal.lifecycle import expiry
from shoal.lifecycle.expiry import ExpiryScheduler


class Clock:
    """Unix seconds that move only when told.

    Attributes:
        reads: how often somebody looked.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_fires_on_time_and_not_before(clock: Clock) -> None:
    fired = list[str]()
    scheduler = ExpiryScheduler(fired.append, clock)
    scheduler.arm("a", 1010.0)
    scheduler.start()
    scheduler.fire()
    assert fired == []
    clock.now = 1010.0
    scheduler.fire()
    scheduler.fire()
    assert fired == ["a"]
    assert len(scheduler) == 0
    scheduler.stop()


async def test_what_is_overdue_fires_at_start() -> None:
    fired = list[str]()
    scheduler = ExpiryScheduler(fired.append)
    scheduler.arm("a", datetime.now(UTC) - timedelta(days=1))
    await asyncio.sleep(0)
    assert fired == []
    scheduler.start()
    await until(lambda: fired == ["a"])
    scheduler.stop()


async def test_the_real_clock_is_never_anticipated() -> None:
    late = list[float]()
    due: dict[str, float] = {}
    now = datetime.now(UTC).timestamp()
    scheduler = ExpiryScheduler(lambda name: late.append(datetime.now(UTC).timestamp() - due[name]))
    for n in range(200):
        due[str(n)] = now + random.Random(n).uniform(0.0, 0.3)
        scheduler.arm(str(n), due[str(n)])
    scheduler.start()
    await until(lambda: len(late) == 200)
    assert min(late) >= 0.0
    scheduler.stop()


async def test_a_clock_set_forward_is_noticed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MAX_SLEEP", 0.01)
    fired = list[str]()
    scheduler = ExpiryScheduler(fired.append, clock)
    scheduler.arm("a", clock.now + 86400)
    scheduler.start()
    clock.now += 90000
    await until(lambda: fired == ["a"])
    scheduler.stop()


async def test_a_clock_set_back_fires_nothing_early(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "MAX_SLEEP", 0.005)
    fired = list[str]()
    scheduler = ExpiryScheduler(fired.append, clock)
    scheduler.arm("a", clock.now + 0.01)
    scheduler.start()
    clock.now -= 3600
    before = clock.reads
    await until(lambda: clock.reads > before + 3)
    assert fired == []
    clock.now += 7200
    await until(lambda: fired == ["a"])
    scheduler.stop()


async def test_one_failing_callee_does_not_stop_the_others(clock: Clock) -> None:
    fired = list[str]()

    def due(name: str) -> None:
        fired.append(name)
        if name == "bad":
            raise RuntimeError("a bug")

    errors = list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    scheduler = ExpiryScheduler(due, clock)
    for name in ("a", "bad", "z"):
        scheduler.arm(name, clock.now)
    scheduler.start()
    await until(lambda: sorted(fired) == ["a", "bad", "z"])
    assert len(errors) == 1
    scheduler.stop()


async def test_a_callee_may_arm_again(clock: Clock) -> None:
    fired = list[float]()

    def due(name: str) -> None:
        fired.append(clock.now)
        scheduler.arm(name, clock.now + 10)

    scheduler = ExpiryScheduler(due, clock)
    scheduler.arm("a", 1005.0)
    scheduler.start()
    for clock.now in (1005.0, 1014.0, 1015.0, 1024.0, 1025.0):
        scheduler.fire()
    assert fired == [1005.0, 1015.0, 1025.0]
    scheduler.stop()


async def test_renewals_do_not_grow_the_heap(clock: Clock) -> None:
    scheduler = ExpiryScheduler(lambda name: None, clock)
    for step in range(20_000):
        scheduler.arm(str(step % 10), 2000.0 + step)
    assert len(scheduler) == 10
    assert len(scheduler._heap) <= 64 + 2 * 10


names = st.sampled_from("abcdef")
steps = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), names, st.integers(0, 50)),
        st.tuples(st.just("disarm"), names, st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(steps)
def test_against_a_naive_model(script: list[tuple[str, str, int]]) -> None:
    """Whatever is armed, moved and disarmed, exactly what is due fires, once."""
    clock, armed = Clock(), dict[str, float]()
    fired = list[str]()
    scheduler = ExpiryScheduler(fired.append, clock)
    for action, name, amount in script:
        if action == "arm":
            armed[name] = clock.now + amount
            scheduler.arm(name, armed[name])
        elif action == "disarm":
            armed.pop(name, None)
            scheduler.disarm(name)
        else:
            clock.now += amount
            scheduler.fire()
            due = sorted(name for name, moment in armed.items() if moment <= clock.now)
            assert sorted(fired) == due
            armed = {name: moment for name, moment in armed.items() if moment > clock.now}
            fired.clear()
        assert len(scheduler) == len(armed)
