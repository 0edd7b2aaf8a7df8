"""One pool in memory: its members, and how many there should be."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from shoal.lifecycle.pools.shape import Shape
from shoal.models.plan import WorkloadPlan
from shoal.models.pools import CapacitySpec, Pool, PoolPlace, PoolRecord, PoolStatus
from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces import POOL_LABEL

TAKEABLE_STATES = frozenset({State.PAUSED, State.RUNNING, State.PAUSING})
"""States of a hidden member that a create can take at once: it is frozen, not frozen yet, or just being frozen."""
COUNTED_STATES = frozenset({State.PENDING, State.RUNNING, State.PAUSING, State.PAUSED})
"""States of a hidden member that counts; in any other it is on its way out."""


class PoolState:
    """The members of one pool by id, as the ledger last reported them.

    Attributes:
        hidden: those that nobody has, oldest first.
        taken: ids of those that somebody has.
        starting: ids whose record is about to be durable.
        promised: ids of hidden ones that a create is about to take.
        leaving: ids of hidden ones that are about to be removed as surplus.
        failures: warm-ups that failed since the last that did not.
        trouble: why the last one failed.
    """

    def __init__(self, record: PoolRecord, shape: Shape) -> None:
        self.record = record
        self.shape = shape
        self.hidden: dict[str, SandboxRecord] = {}
        self.taken: set[str] = set()
        self.starting: set[str] = set()
        self.promised: set[str] = set()
        self.leaving: set[str] = set()
        self.failures = 0
        self.trouble: str | None = None

    def place(self, *, idle: bool) -> PoolPlace:
        """What a member's record says."""
        return PoolPlace(name=self.record.name, pool_id=self.record.id, idle=idle)

    def marked(self, draft: WorkloadPlan, sandbox_id: str) -> WorkloadPlan:
        """The plan of a member of that id; the engine's own record of it says whose it is."""
        return replace(draft, id=sandbox_id, labels={**draft.labels, POOL_LABEL: self.record.name})

    def note(self, sandbox_id: str, record: SandboxRecord | None) -> None:
        """A member's record as the ledger reports it; None when it is gone."""
        self.starting.discard(sandbox_id)
        if record is None or not record.hidden:
            self.hidden.pop(sandbox_id, None)
            self.leaving.discard(sandbox_id)
        else:
            self.hidden[sandbox_id] = record
        if record is None or record.hidden:
            self.taken.discard(sandbox_id)
        else:
            self.taken.add(sandbox_id)

    @property
    def buffer(self) -> int:
        """Members that nobody has: idle, or on their way to it."""
        coming = sum(
            member.state in COUNTED_STATES and member.id not in self.leaving for member in self.hidden.values()
        )
        return coming + len(self.starting)

    @property
    def ready(self) -> int:
        """Members that a create can take at once."""
        return sum(member.state in TAKEABLE_STATES for member in self.hidden.values())

    @property
    def full(self) -> bool:
        """Whether ``poolMax`` allows no further member."""
        return len(self.taken) + self.buffer >= self.record.capacity.pool_max

    def waiting(self, state: State) -> str | None:
        """The oldest hidden member in this state that nobody is about to take or to remove."""
        for sandbox_id, member in self.hidden.items():
            if member.state is state and not self.spoken_for(sandbox_id):
                return sandbox_id
        return None

    def spoken_for(self, sandbox_id: str) -> bool:
        """Whether a hidden member is about to be taken or removed."""
        return sandbox_id in self.promised or sandbox_id in self.leaving

    def change(self) -> int:
        """How many members to start, or if negative to remove."""
        buffer = self.buffer
        return desired_buffer(self.record.capacity, len(self.taken), buffer) - buffer

    def public(self) -> Pool:
        """The wire form."""
        return Pool(
            name=self.record.name,
            capacity_spec=self.record.capacity,
            created_at=self.record.created_at,
            status=PoolStatus(
                total=len(self.taken) + self.buffer,
                allocated=len(self.taken),
                available=self.ready,
                revision=self.shape.fingerprint[:12],
                message=self.trouble or UNSET,
            ),
        )


def desired_buffer(capacity: CapacitySpec, allocated: int, buffer: int) -> int:
    """How many members nobody should have, given how many there are; as the cluster's own controller reckons.

    Within ``buffer_min`` and ``buffer_max`` it stays; outside, it goes to their middle, so that a pool does not move
    with every take. ``pool_min`` raises it, ``pool_max`` has the last word.
    """
    if not capacity.buffer_min <= buffer <= capacity.buffer_max:
        buffer = (capacity.buffer_min + capacity.buffer_max) // 2
    buffer = max(buffer, capacity.pool_min - allocated)
    return max(0, min(buffer, capacity.pool_max - allocated))
