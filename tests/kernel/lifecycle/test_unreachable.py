"""What a look-up of an endpoint says of a create that failed after its 202: what a create that waits would say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryStore, Server, StoreContent, fails, request

import shoal.errors
from shoal.errors import (
    Conflict,
    EngineFailure,
    Forbidden,
    GatewayTimeout,
    InvalidRequest,
    NotFound,
    NotSupported,
    RateLimited,
    ShoalError,
)
from shoal.lifecycle.ledger import Ledger
from shoal.lifecycle.unreachable import unreachable
from shoal.models.sandbox import Failure, SandboxRecord, State
from shoal.models.statuses import ENDPOINT, PARSED
from shoal.view.index import View

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILED = SandboxRecord(
    id="one", runtime="memory", state=State.FAILED, since=NOW, created_at=NOW, entrypoint=["sleep", "1"]
)
CASES = [
    (EngineFailure("MEMORY::PULL_FAILED", "no such image"), 500),
    (InvalidRequest("VOLUME::PVC_NOT_FOUND", "no such volume"), 400),
    (Forbidden("MEMORY::QUOTA_EXCEEDED", "used up"), 403),
    (NotFound("MEMORY::POOL_NOT_FOUND", "no such pool"), 404),
    (Conflict("SANDBOX::INVALID_PARAMETER", "another's claim"), 400),
    (RateLimited("MEMORY::POOL_CAPACITY_EXHAUSTED", "used up", retry_after=1), 500),
    (NotSupported("MEMORY::LACKING", "lacking"), 400),
    (GatewayTimeout("MEMORY::READY_TIMEOUT", "not ready"), 500),
]


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda case: getattr(case, "code", ""))
async def test_a_failed_create_is_told_with_its_own_code_also_after_a_restart(error: ShoalError, status: int) -> None:
    async with Server() as server:
        server.world.fault = fails("create", error)
        made = (await server.lifecycle.sandboxes.create(request())).record.id
        await server.lifecycle.sandboxes.wait(made, frozenset({State.FAILED}), 30)
        assert await _asked(server, made) == (status, error.code, error.message)
    async with Server(server.world, server.disk) as server:
        assert await _asked(server, made) == (status, error.code, error.message)
        assert server.lifecycle.sandboxes.entry(made).record.failure == Failure(error.code, error.status)


async def test_one_that_runs_again_has_failed_of_nothing() -> None:
    ledger = Ledger(MemoryStore(StoreContent()), View(), [])
    entry = await ledger.write(replace(FAILED, failure=Failure("MEMORY::X", 400)), state=State.RUNNING)
    assert entry.record.failure is None


def test_no_failure_is_told_with_a_status_that_clients_cannot_read_there() -> None:
    for kind in _kinds(ShoalError):
        told = unreachable(replace(FAILED, failure=Failure("A::B", kind.status)), "MEMORY")
        assert told.status in PARSED[ENDPOINT], kind
        assert told.code == "A::B"
        assert told.status >= 500 or kind.status < 500 or kind is NotSupported, "what is ours is not the caller's"


@pytest.mark.parametrize(
    ("reason", "code"), [("POD_FAILED", "POD_FAILED"), ("OOMKilled", "SANDBOX_FAILED"), (None, "SANDBOX_FAILED")]
)
def test_a_record_without_a_code_is_told_by_its_reason(reason: str | None, code: str) -> None:
    told = unreachable(replace(FAILED, reason=reason, message="why"), "MEMORY")
    assert (told.status, told.code, told.message) == (500, f"MEMORY::{code}", "why")


async def _asked(server: Server, sandbox_id: str) -> tuple[int, str, str]:
    with pytest.raises(ShoalError) as caught:
        await server.lifecycle.reach.endpoint(sandbox_id, 44772, use_server_proxy=False, expires=None, base="x")
    return caught.value.status, caught.value.code, caught.value.message


def _kinds(kind: type[ShoalError]) -> Iterator[type[ShoalError]]:
    """Every error that there is and that a caller can be told."""
    for child in kind.__subclasses__():
        if child.__module__ == shoal.errors.__name__:
            yield child
        yield from _kinds(child)
