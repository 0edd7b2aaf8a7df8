"""The clock alone: who is due when, and what it costs."""

from __future__ import annotations

import pytest
from tests.idle_timeout.clocks import Clock

from shoal_idle.clock import IdleClock


class Bench:
    """A clock whose timer is the test."""

    def __init__(self) -> None:
        self.now = Clock()
        self.due: list[str] = []
        self.clock = IdleClock(self.due.append, self.now)

    def after(self, seconds: float) -> list[str]:
        """Who became due until then."""
        self.now.seconds += seconds
        self.due.clear()
        self.clock.fire()
        return list(self.due)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_due_at_the_timeout_and_only_once(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    assert [bench.after(59.9), bench.after(0.1), bench.after(1000)] == [[], ["a"], []]


def test_an_access_moves_it_on_from_then(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    bench.after(50)
    bench.clock.enter("a")
    bench.clock.leave("a")
    assert [bench.after(59), bench.after(1)] == [[], ["a"]]


def test_in_use_until_the_last_exchange_ends(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    bench.clock.enter("a")
    bench.clock.enter("a")
    assert [bench.after(600), bench.after(600)] == [[], []]
    bench.clock.leave("a")
    assert [bench.after(600), bench.clock.idle("a")] == [[], False]
    bench.clock.leave("a")
    assert [bench.after(59), bench.after(1)] == [[], ["a"]]


def test_grace_comes_on_top(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    bench.clock.touch("a", 30.0)
    bench.clock.touch("a")
    assert [bench.after(89), bench.after(1)] == [[], ["a"]]


def test_time_stands_still_while_it_rests(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    bench.clock.enter("a")
    bench.clock.rest("a")
    assert bench.after(600) == []
    bench.clock.run("a", 60.0)
    assert bench.after(600) == []
    bench.clock.leave("a")
    assert bench.after(60) == ["a"]


def test_due_again_only_when_armed_again(bench: Bench) -> None:
    bench.clock.run("a", 60.0)
    assert bench.after(60) == ["a"]
    bench.clock.arm("a", 30.0)
    assert [bench.after(29), bench.after(1)] == [[], ["a"]]
    bench.clock.touch("a")
    bench.clock.arm("a")
    assert [bench.after(59), bench.after(1)] == [[], ["a"]]


def test_many_are_due_in_their_order(bench: Bench) -> None:
    for number in range(100):
        bench.clock.run(f"{number:02}", 60.0 + number % 10)
    assert bench.after(60) == [f"{number:02}" for number in range(0, 100, 10)]
    assert len(bench.after(9)) == 90


def test_comings_and_goings_do_not_grow_the_heap(bench: Bench) -> None:
    for _ in range(1000):
        bench.clock.run("a", 86400.0)
        bench.clock.rest("a")
        bench.clock.run("b", 86400.0)
        bench.clock.forget("b")
        bench.now.seconds += 1
    assert len(bench.clock._clock._heap) <= 100
    assert len(bench.clock) == 1


def test_strangers_are_nobodys_business(bench: Bench) -> None:
    bench.clock.enter("x")
    bench.clock.leave("x")
    bench.clock.touch("x")
    bench.clock.rest("x")
    bench.clock.arm("x")
    bench.clock.forget("x")
    assert (len(bench.clock), bench.clock.idle("x"), bench.clock.uses("x")) == (0, False, 0)
