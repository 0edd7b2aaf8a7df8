"""Sandboxes that are taken from a pool (docs/wire/kubernetes.md section 6).

Their object names a pool instead of a pod template, and a task: the sandbox's own command, which the controller hands
to the pod that it allocates.
"""

from __future__ import annotations

import shlex
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.opensandbox import POOL_EXTENSION
from shoal.models.plan import WorkloadPlan
from shoal_k8s.api import Meta
from shoal_k8s.pods.defaults import RUNTIME_DIR, PodDefaults
from shoal_k8s.pools.objects import FINALIZER, allocated, kept

ANY: Final = "*"
EXHAUSTED: Final = "POOL_CAPACITY_EXHAUSTED"
"""Reason of a sandbox for which its pool has no pod yet."""
UNKNOWN_IMAGE: Final = "unknown"
_START: Final = f"exec {RUNTIME_DIR}/bootstrap.sh"


def pool_of(plan: WorkloadPlan) -> str | None:
    """The pool that a create names, `ANY` for whichever has a pod; None if it names none."""
    return plan.extensions.get(POOL_EXTENSION, "").strip() or None


def check(plan: WorkloadPlan) -> None:
    """Raise InvalidRequest for what a pod that runs already cannot be given."""
    wanted = {
        "networkPolicy": plan.network.policy is not None,
        "credentialProxy": plan.credential_proxy,
        "volumes": bool(plan.volumes),
        "platform": plan.platform is not None,
        "sidecars": bool(plan.sidecars),
    }
    for field, asked in wanted.items():
        if asked:
            raise InvalidRequest(
                codes.INVALID_PARAMETER, f"{field} cannot be combined with extensions.poolRef on Kubernetes."
            )


def spec(plan: WorkloadPlan, pool: str, defaults: PodDefaults) -> dict[str, Any]:
    """The ``spec`` of a pooled BatchSandbox, but for its expiry."""
    env = {name: value or "" for name, value in plan.env.items()}
    env.pop("EXECD_INIT", None)
    env.pop("OPENSANDBOX_ID", None)
    if defaults.execd_as_init:
        env["EXECD_INIT"] = "1"
    env["OPENSANDBOX_ID"] = plan.id
    command = ["/bin/sh", "-c", f"{_START} {shlex.join(plan.argv)}"]
    process = {"command": command, "env": [{"name": name, "value": value} for name, value in env.items()]}
    return {"replicas": 1, "poolRef": pool, "taskTemplate": {"spec": {"process": process}}}


def command_of(task: list[str]) -> list[str]:
    """The sandbox's own command in a task's; empty where another server wrote it in another way."""
    if len(task) != 3 or not task[2].startswith(f"{_START} "):
        return []
    try:
        return shlex.split(task[2].removeprefix(_START))
    except ValueError:
        return []


def allocation(meta: Meta, pool: str | None, pods: int) -> str | None:
    """The pool that an object's pods were allocated from, once that is certain.

    Args:
        pool: what the object names.
        pods: how many its status counts as allocated.
    """
    held = allocated(meta.annotations)
    certain = (
        pool not in (None, ANY)
        and meta.deletion_timestamp is None
        and FINALIZER in meta.finalizers
        and held.pool_ref == pool
        and len(set(held.pods)) == len(held.pods) == pods > 0
        and kept(meta.annotations) == held.pods
    )
    return pool if certain else None
