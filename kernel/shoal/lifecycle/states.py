"""The state machine, as pure functions.

::

    Pending ◄─► Running ◄──► Pausing, Paused, Resuming
       │           │  ╲            │
       ▼           ▼   ╲           ▼
    Failed      Terminated      Stopping ──► gone

Every state leads to Stopping (delete, expiry). Terminated and Failed are what the engine reports of a workload that
ended by itself; a create that could not be realised is Failed as well, with ``purge_at`` set. Back to Pending goes
what an engine starts again by itself. Any settled state may follow another, as another server may be the one that acts.
Unknown is no state of a record: it is shown where the runtime does not answer (`Entry.doubt`).
"""

from __future__ import annotations

from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase
from shoal.view.entry import Entry

RECORDED = frozenset(set(State) - {State.UNKNOWN})
"""States of records."""
_ALIVE = RECORDED - {State.STOPPING}

TRANSITIONS: dict[State, frozenset[State]] = {
    **{state: RECORDED - {state} for state in _ALIVE},
    State.STOPPING: frozenset(),
}
"""From each state, the states that may follow it; Stopping is followed by nothing but being gone."""

_OF_PHASE: dict[Phase, State] = {
    Phase.RESTARTING: State.PENDING,
    Phase.RUNNING: State.RUNNING,
    Phase.PAUSING: State.PAUSING,
    Phase.PAUSED: State.PAUSED,
    Phase.RESUMING: State.RESUMING,
    Phase.EXITED: State.TERMINATED,
    Phase.FAILED: State.FAILED,
    Phase.STOPPING: State.STOPPING,
}

SETTLED: frozenset[State] = frozenset({State.RUNNING, State.PAUSED, State.TERMINATED, State.FAILED})
"""States in which nothing is under way, so that what the engine reports decides."""

UNDER_WAY: frozenset[State] = frozenset({State.PAUSING, State.RESUMING})
"""States that last as long as an operation. One that outlives it was cut off before its outcome was durable, or the
engine goes on by itself and says so (`Phase.PAUSING`, `Phase.RESUMING`)."""

REACHABLE_SOON: frozenset[State] = frozenset({State.PENDING, State.RESUMING})
"""States in which waiting for an address makes sense."""


def allowed(before: State, after: State) -> bool:
    """Whether ``after`` may follow ``before``; a state may always be followed by itself."""
    return before is after or after in TRANSITIONS[before]


def removed_elsewhere(entry: Entry | None) -> bool:
    """Whether it is Stopping by somebody else's doing: this server has nothing to do but to see it go."""
    if entry is None or entry.workload is None:
        return False
    return entry.record.state is State.STOPPING and entry.workload.phase is Phase.STOPPING


def observed(record: SandboxRecord, phase: Phase) -> State | None:
    """The state that a record should have, given what the engine reports; None if it says nothing.

    Asked on the sandbox's lane, where no operation is under way, so that one which seems to be was cut off. A create
    that failed for good (``purge_at`` set) stays Failed whatever its remains look like, and a workload that the engine
    is still starting says nothing about a sandbox that has run already.
    """
    if record.state not in SETTLED | UNDER_WAY or record.purge_at is not None:
        return None
    return _OF_PHASE.get(phase)


def settled(phase: Phase) -> State:
    """The state of a workload that was just created, paused or resumed, by the phase that the runtime returned."""
    return _OF_PHASE.get(phase, State.RUNNING)
