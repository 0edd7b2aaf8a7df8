"""What is said of a sandbox that cannot be reached, because it has ended, sleeps, or was never made."""

from __future__ import annotations

import re

from shoal.errors import Conflict, Forbidden, InternalError, InvalidRequest, NotFound, ShoalError, Unauthenticated
from shoal.models import codes
from shoal.models.sandbox import Failure, SandboxRecord, State
from shoal.models.statuses import ENDPOINT, PARSED, nearest

_REASON = re.compile(r"[A-Z][A-Z0-9_]*")
_KINDS: dict[int, type[ShoalError]] = {
    kind.status: kind for kind in (InvalidRequest, Unauthenticated, Forbidden, NotFound, InternalError)
}


class NotRunning(Conflict):
    """A sandbox that has no address, and will not have one as things stand."""

    def __init__(self, record: SandboxRecord, scope: str) -> None:
        why = f": {record.message}" if record.message else "."
        super().__init__(codes.scoped(scope, "SANDBOX_NOT_RUNNING"), f"The sandbox is {record.state.value}{why}")
        self.record = record


def unreachable(record: SandboxRecord, scope: str) -> ShoalError:
    """Why a sandbox that ended has no endpoint, with a status that clients parse in a look-up, which 409 is not.

    A create that failed after its 202 is reported as by a server that waits for it.
    """
    if record.state is not State.FAILED:
        ended = NotRunning(record, scope)
        return NotFound(ended.code, ended.message)
    failure = record.failure or Failure(codes.scoped(scope, _word(record.reason)), InternalError.status)
    kind = _KINDS.get(nearest(failure.status, PARSED[ENDPOINT]), InternalError)
    return kind(failure.code, record.message or "The sandbox has failed.")


def _word(reason: str | None) -> str:
    """A reason as the second half of a code."""
    return reason if reason and _REASON.fullmatch(reason) else "SANDBOX_FAILED"
