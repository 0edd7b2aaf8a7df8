"""The due clock: never early, once each, and one callee that raises holds nobody up."""

from __future__ import annotations

import asyncio
import time

from hypothesis import given
from hypothesis import strategies as st

from shoal.kit import DueClock


class Hands:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


KEYS = st.sampled_from("abcde")
STEPS = st.one_of(
    st.tuples(st.just("arm"), KEYS, st.integers(0, 50)),
    st.tuples(st.just("disarm"), KEYS, st.just(0)),
    st.tuples(st.just("wait"), st.just(""), st.integers(0, 20)),
)


@given(st.lists(STEPS, max_size=60))
def test_due_as_a_table_says(steps: list[tuple[str, str, int]]) -> None:
    hands, fired, table = Hands(), list[str](), dict[str, float]()
    clock = DueClock(fired.append, hands)
    for verb, key, number in steps:
        if verb == "arm":
            clock.arm(key, hands.now + number)
            table[key] = hands.now + number
        elif verb == "disarm":
            clock.disarm(key)
            table.pop(key, None)
        else:
            hands.now += number
            clock.fire()
            due = [key for key, moment in table.items() if moment <= hands.now]
            assert sorted(fired) == sorted(due)
            for key in due:
                del table[key]
            fired.clear()
        assert {key: clock.time_of(key) for key in table} == table
        assert len(clock) == len(table)


async def test_the_timer_fires_by_itself_and_what_one_callee_raises_keeps_no_other() -> None:
    loop, fired, errors = asyncio.get_running_loop(), list[str](), list[str]()
    both = asyncio.Event()
    loop.set_exception_handler(lambda _, context: errors.append(str(context["exception"])))

    def due(key: str) -> None:
        fired.append(key)
        if len(fired) == 2:
            both.set()
        if key == "bad":
            raise ValueError("bad callee")

    clock = DueClock(due, time.monotonic)
    clock.arm("bad", time.monotonic())
    clock.arm("good", time.monotonic() + 0.001)
    clock.start()
    await asyncio.wait_for(both.wait(), 30)
    clock.stop()
    assert (fired, errors) == (["bad", "good"], ["bad callee"])


def test_changing_times_do_not_grow_the_heap() -> None:
    clock = DueClock(lambda _: None, Hands())
    for moment in range(10_000):
        clock.arm(f"k{moment % 10}", float(moment))
    assert len(clock) == 10
    assert len(clock._heap) <= 64 + 2 * 10
