"""What a BatchSandbox was asked to become, and how far its controller is (docs/wire/kubernetes.md section 16).

The controller acknowledges a wish by ``status.pauseObservedGeneration``, and moves the phase with it. Until then, and
for as long as it is stopped, the wish stands in ``spec.pause`` alone. One that is acknowledged without a move is lost:
an earlier transition ended with a status that counted the new wish as done.
"""

from __future__ import annotations

from shoal.models.workload import Phase
from shoal_k8s.pods.objects import Condition
from shoal_k8s.pods.status import PodVerdict

_RUNS = (None, "Succeed", "Running")


def transition(
    pause: bool | None, phase: str | None, conditions: list[Condition], *, acknowledged: bool | None
) -> PodVerdict | None:
    """Where it is between running and paused; None if it is not about that.

    Args:
        acknowledged: whether the controller has acknowledged the present wish; None for one that acknowledges none.
    """
    match phase:
        case "Pausing":
            return _pausing()
        case "Resuming":
            return _resuming()
        case "Paused" if pause is False:
            failed = _given_up(conditions, "ResumeFailed", acknowledged)
            return _resuming() if failed is None else PodVerdict(Phase.PAUSED, "RESUME_FAILED", failed)
        case "Paused":
            return PodVerdict(Phase.PAUSED, "PAUSED", "The sandbox is paused.")
    if pause and phase in _RUNS:
        failed = _given_up(conditions, "PauseFailed", acknowledged)
        return _pausing() if failed is None else PodVerdict(Phase.RUNNING, "PAUSE_FAILED", failed)
    return None


def _given_up(conditions: list[Condition], kind: str, acknowledged: bool | None) -> str | None:
    if acknowledged is False:
        return None
    found = next((each for each in conditions if each.type == kind and each.status == "True"), None)
    if found is None:
        return f"{kind}: the controller let the wish go; ask again" if acknowledged else None
    return f"{kind}: {found.message or found.reason or 'no reason'}"


def _pausing() -> PodVerdict:
    return PodVerdict(Phase.PAUSING, "PAUSING", "The sandbox is being paused.")


def _resuming() -> PodVerdict:
    return PodVerdict(Phase.RESUMING, "RESUMING", "The sandbox is being resumed.")
