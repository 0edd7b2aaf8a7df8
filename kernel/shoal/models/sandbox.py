"""A sandbox: what the kernel keeps of it, and what it shows of it.

`SandboxRecord` is the kernel's own truth, committed to the store before an engine is called. `Sandbox` is its public
face (docs/wire/api.md section 7).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from shoal.models.frozen import EMPTY_DICT, Frozen
from shoal.models.opensandbox import ECHOED_EXTENSION_PREFIX
from shoal.models.pools import PoolPlace
from shoal.models.requests import PlatformSpec, Wire


class State(StrEnum):
    """The documented states (docs/wire/api.md section 7)."""

    PENDING = "Pending"
    RUNNING = "Running"
    PAUSING = "Pausing"
    PAUSED = "Paused"
    RESUMING = "Resuming"
    STOPPING = "Stopping"
    TERMINATED = "Terminated"
    FAILED = "Failed"
    UNKNOWN = "Unknown"
    """Shown of a sandbox whose runtime does not answer, or is not enabled; no record has it."""


class Status(Wire):
    """The public status; ``last_transition_at`` moves whenever ``state`` does."""

    state: State
    reason: str | None = None
    message: str | None = None
    last_transition_at: datetime | None = None


class ImageRef(Wire):
    uri: str


class Allocation(Wire, omit_defaults=False):
    """Which pool a sandbox was taken from."""

    pool_ref: str
    mode: Literal["pool"] = "pool"
    state: Literal["allocated"] = "allocated"


class Sandbox(Wire):
    """Answer of get, list and metadata patch.

    Null fields are absent; ``metadata`` of a sandbox without any is absent.
    """

    id: str
    status: Status
    created_at: datetime
    entrypoint: Annotated[list[str], Meta(description="the sandbox's own command")]
    image: ImageRef | UnsetType = UNSET
    snapshot_id: str | UnsetType = UNSET
    platform: PlatformSpec | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    extensions: dict[str, str] | UnsetType = UNSET
    expires_at: datetime | UnsetType = UNSET
    allocation: Allocation | UnsetType = UNSET


ACCEPTED = "ACCEPTED"
"""Reason of a Pending sandbox whose runtime has said nothing yet."""


class Failure(Struct, frozen=True):
    """Why a create came to nothing: the code and the HTTP status with which a create that waits would be refused."""

    code: str
    status: int


class SandboxRecord(Frozen, kw_only=True, omit_defaults=True, frozen=True):
    """The durable record of one sandbox. The lifecycle replaces it, on that sandbox's lane, and nobody else
    does.

    Attributes:
        id: UUID4 with hyphens.
        runtime: name of the runtime plugin's runtime that realises it.
        state, reason, message, since: the status; ``since`` is when ``state`` last changed.
        expires_at: UTC; None means manual clean-up.
        created_at: when the create was accepted (UTC).
        entrypoint: the sandbox's own command.
        image, snapshot_id, platform, metadata: as the create had them; metadata as patched since.
        purge_at: when a Failed create is forgotten (PENDING_FAILURE_TTL); None otherwise.
        failure: of a Failed create, the error of a caller who asks for an endpoint; ``message`` goes with it.
        extensions: every extension of the request; only some are echoed (`echoed_extensions`).
        owner: name of the principal that created it; None when authentication is off.
        pool: the pool that it was started for; None for every other.
    """

    id: str
    runtime: str
    state: State
    since: datetime
    created_at: datetime
    entrypoint: list[str]
    reason: str | None = None
    message: str | None = None
    expires_at: datetime | None = None
    purge_at: datetime | None = None
    failure: Failure | None = None
    image: str | None = None
    snapshot_id: str | None = None
    platform: PlatformSpec | None = None
    metadata: dict[str, str] = EMPTY_DICT
    extensions: dict[str, str] = EMPTY_DICT
    owner: str | None = None
    pool: PoolPlace | None = None

    @property
    def fresh(self) -> bool:
        """Whether nothing is known of it yet but that it was accepted."""
        return self.state is State.PENDING and self.reason == ACCEPTED

    @property
    def hidden(self) -> bool:
        """Whether it waits in a pool: nobody knows of it but the kernel."""
        return self.pool is not None and self.pool.idle


def echoed_extensions(extensions: dict[str, str]) -> dict[str, str]:
    """Only ``opensandbox.extensions.<x>`` keys are echoed back (docs/wire/api.md section 6)."""
    return {key: value for key, value in extensions.items() if key.startswith(ECHOED_EXTENSION_PREFIX)}


class Doubt(Struct, frozen=True):
    """Why a record may not be what is on the engine, as ``reason`` and ``message`` of the status say it."""

    reason: str
    message: str


IN_DOUBT = frozenset({State.RUNNING, State.PAUSING, State.PAUSED, State.RESUMING})
"""States that say what an engine holds now; without the engine's word they are Unknown."""
ENDED_BY_ITSELF = frozenset({State.FAILED, State.TERMINATED})


def public(record: SandboxRecord, native_pool: str | None = None, doubt: Doubt | None = None) -> Sandbox:
    """The wire form of a record; ``native_pool`` is `Workload.pool`."""
    pool = native_pool if record.pool is None else record.pool.name
    return Sandbox(
        id=record.id,
        status=_status(record, doubt),
        created_at=record.created_at,
        entrypoint=record.entrypoint,
        image=UNSET if record.image is None or record.snapshot_id is not None else ImageRef(uri=record.image),
        snapshot_id=record.snapshot_id or UNSET,
        platform=record.platform or UNSET,
        metadata=record.metadata or UNSET,
        extensions=echoed_extensions(record.extensions) or UNSET,
        expires_at=record.expires_at or UNSET,
        allocation=UNSET if pool is None else Allocation(pool_ref=pool),
    )


def shown_state(record: SandboxRecord, doubt: Doubt | None) -> State:
    """The state that readers see."""
    return State.UNKNOWN if doubt is not None and record.state in IN_DOUBT else record.state


def _status(record: SandboxRecord, doubt: Doubt | None) -> Status:
    reason, message = record.reason, record.message
    if doubt is not None and record.state not in ENDED_BY_ITSELF:
        last = f" Its last known state is {record.state.value}." if record.state in IN_DOUBT else ""
        reason, message = doubt.reason, doubt.message + last
    return Status(state=shown_state(record, doubt), reason=reason, message=message, last_transition_at=record.since)
