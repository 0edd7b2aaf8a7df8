"""The state machine: closed under everything that an engine can report, with one way out."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.lifecycle import states
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(state: State, purge_at: datetime | None = None) -> SandboxRecord:
    return SandboxRecord(
        id="x", runtime="memory", state=state, since=NOW, created_at=NOW, entrypoint=["true"], purge_at=purge_at
    )


def test_every_state_has_its_row() -> None:
    assert set(states.TRANSITIONS) == states.RECORDED == set(State) - {State.UNKNOWN}


@given(st.sampled_from(State), st.sampled_from(Phase), st.sampled_from([None, NOW]))
def test_what_is_observed_is_always_allowed(state: State, phase: Phase, purge_at: datetime | None) -> None:
    seen = states.observed(record(state, purge_at), phase)
    assert seen is None or states.allowed(state, seen)


@given(st.sampled_from(Phase))
def test_whatever_an_operation_ends_in_is_allowed(phase: Phase) -> None:
    for between in (State.PENDING, State.PAUSING, State.RESUMING):
        assert states.allowed(between, states.settled(phase))


def test_every_state_but_stopping_leads_to_stopping_and_stopping_to_nothing() -> None:
    for state in states.RECORDED:
        assert states.allowed(state, State.STOPPING)
    assert not any(states.allowed(State.STOPPING, state) for state in states.RECORDED if state is not State.STOPPING)


def test_only_what_the_engine_starts_again_becomes_pending_again() -> None:
    seen = {phase: states.observed(record(State.RUNNING), phase) for phase in Phase}
    assert [phase for phase, state in seen.items() if state is State.PENDING] == [Phase.RESTARTING]


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("state", [State.PENDING, State.STOPPING])
def test_the_engine_does_not_decide_while_a_create_or_a_removal_is_under_way(state: State, phase: Phase) -> None:
    assert states.observed(record(state), phase) is None


@pytest.mark.parametrize("phase", Phase)
def test_a_failed_create_stays_failed_whatever_its_remains_look_like(phase: Phase) -> None:
    assert states.observed(record(State.FAILED, NOW), phase) is None


def test_an_operation_that_was_cut_off_is_settled_by_what_the_engine_says() -> None:
    assert states.observed(record(State.PAUSING), Phase.PAUSED) is State.PAUSED
    assert states.observed(record(State.PAUSING), Phase.RUNNING) is State.RUNNING
    assert states.observed(record(State.RESUMING), Phase.EXITED) is State.TERMINATED
