"""The view: pages, filters and waits, against a naive model that sorts and filters a plain dict."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from shoal.models.pools import PoolPlace
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.view.entry import Entry
from shoal.view.index import View
from shoal.view.listing import ListQuery

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ids = st.sampled_from([f"id-{n}" for n in range(12)])
metadata = st.dictionaries(st.sampled_from(["team", "env", "n"]), st.sampled_from(["", "a", "b", "A"]), max_size=3)
state_filter = st.none() | st.frozensets(st.sampled_from([*(s.lower() for s in State), "bogus"]), max_size=3)


def record(sandbox_id: str, state: State = State.RUNNING, second: int = 0, **changes: dict[str, str]) -> SandboxRecord:
    return SandboxRecord(
        id=sandbox_id,
        runtime="memory",
        state=state,
        since=EPOCH,
        created_at=EPOCH + timedelta(seconds=second),
        entrypoint=["true"],
        **changes,  # type: ignore[arg-type]  # metadata or extensions
    )


class ViewModel(RuleBasedStateMachine):
    """A view and a dict, put through the same steps."""

    def __init__(self) -> None:
        super().__init__()
        self.view = View()
        self.model: dict[str, SandboxRecord] = {}

    @rule(
        sandbox_id=ids,
        state=st.sampled_from(State),
        second=st.integers(0, 3),
        metadata=metadata,
        idle=st.sampled_from([None, False, True]),
    )
    def put(self, sandbox_id: str, state: State, second: int, metadata: dict[str, str], idle: bool | None) -> None:
        """One that is taken from a pool, or given back, also has another time of creation from then on."""
        pool = None if idle is None else PoolPlace(name="warm", pool_id="p", idle=idle)
        old = self.model.get(sandbox_id)
        if old is None:
            new = replace(record(sandbox_id, state, second, metadata=metadata), pool=pool)
        else:
            new = replace(old, state=state, metadata=metadata, pool=pool)
            if old.hidden or new.hidden:
                new = replace(new, created_at=EPOCH + timedelta(seconds=second))
        self.model[sandbox_id] = new
        self.view.put(Entry(new))

    @rule(sandbox_id=ids)
    def see(self, sandbox_id: str) -> None:
        entry = self.view.get(sandbox_id)
        if entry is not None:
            self.view.put(Entry(entry.record, Workload(id=sandbox_id, phase=Phase.RUNNING)))

    @rule(sandbox_id=ids)
    def remove(self, sandbox_id: str) -> None:
        self.model.pop(sandbox_id, None)
        self.view.remove(sandbox_id)

    @rule(states=state_filter, metadata=metadata, page=st.integers(1, 4), page_size=st.integers(1, 5))
    def list(self, states: frozenset[str] | None, metadata: dict[str, str], page: int, page_size: int) -> None:
        matching = [
            record
            for record in self.model.values()
            if not record.hidden
            and (states is None or record.state.lower() in states)
            and metadata.items() <= record.metadata.items()
        ]
        matching.sort(key=lambda record: (-record.created_at.timestamp(), record.id))
        found = self.view.page(ListQuery(states=states, metadata=metadata, page=page, page_size=page_size))
        assert found.total == len(matching)
        assert [entry.record for entry in found.items] == matching[(page - 1) * page_size : page * page_size]

    @precondition(lambda self: self.model)
    @rule(page_size=st.integers(1, 5))
    def pages_cover_everything_once(self, page_size: int) -> None:
        pages = math.ceil(len(self.model) / page_size)
        listed = [
            entry.record.id
            for page in range(1, pages + 1)
            for entry in self.view.page(ListQuery(page=page, page_size=page_size)).items
        ]
        assert sorted(listed) == sorted(key for key, record in self.model.items() if not record.hidden)

    @invariant()
    def holds_the_same(self) -> None:
        assert {entry.record.id: entry.record for entry in self.view} == self.model
        assert len(self.view) == len(self.model)
        assert all(self.view.get(sandbox_id) is not None for sandbox_id in self.model)

    def teardown(self) -> None:
        """An emptied view keeps nothing of what was in it."""
        for sandbox_id in self.model:
            self.view.remove(sandbox_id)
        assert (len(self.view._all), self.view._states, self.view._metadata) == (0, {}, {})


TestViewModel = ViewModel.TestCase
TestViewModel.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_json_is_encoded_once_and_is_the_public_form() -> None:
    entry = Entry(record("a", metadata={"team": "x"}, extensions={"poolRef": "p", "opensandbox.extensions.y": "z"}))
    assert entry.json is entry.json
    shown = json.loads(entry.json)
    assert shown["metadata"] == {"team": "x"}
    assert shown["extensions"] == {"opensandbox.extensions.y": "z"}
    assert "expiresAt" not in shown
    assert "runtime" not in shown


async def test_until_returns_at_once_when_it_is_so_already() -> None:
    view = View()
    view.put(Entry(record("a")))
    entry = await view.until("a", lambda e: e.record.state is State.RUNNING, 0.0)
    assert entry is not None


async def test_until_hears_of_each_change_and_of_the_end() -> None:
    view = View()
    view.put(Entry(record("a", State.PENDING)))
    waits = [asyncio.create_task(view.until("a", lambda e: e.record.state is State.RUNNING, 30.0)) for _ in range(5)]
    gone = asyncio.create_task(view.until("a", lambda e: False, 30.0))
    await asyncio.sleep(0)
    view.put(Entry(record("a", State.PENDING, metadata={"still": "pending"})))
    await asyncio.sleep(0)
    assert not any(wait.done() for wait in waits)
    view.put(Entry(record("a", State.RUNNING)))
    assert all(entry is not None for entry in await asyncio.gather(*waits))
    view.remove("a")
    assert await gone is None
    assert view._waiters == {}


async def test_until_gives_up_at_the_bound_and_leaves_nothing_behind() -> None:
    view = View()
    view.put(Entry(record("a", State.PENDING)))
    entry = await view.until("a", lambda e: False, 0.01)
    assert entry is not None
    assert entry.record.state is State.PENDING
    cancelled = asyncio.create_task(view.until("a", lambda e: False, 30.0))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    assert view._waiters == {}


async def test_a_change_that_comes_and_goes_before_the_waiter_runs_is_judged_by_what_is_there_then() -> None:
    view = View()
    view.put(Entry(record("a", State.PENDING)))
    wait = asyncio.create_task(view.until("a", lambda e: e.record.state is not State.PENDING, 30.0))
    await asyncio.sleep(0)
    view.put(Entry(record("a", State.RUNNING)))
    view.put(Entry(record("a", State.STOPPING)))
    entry = await wait
    assert entry is not None
    assert entry.record.state is State.STOPPING
