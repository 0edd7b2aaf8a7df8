"""Access tokens: what callers of a sandbox with ``secureAccess`` must present, to the gateway and to this server."""

from __future__ import annotations

import secrets
from typing import Final

from msgspec.structs import replace

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Networking

TOKEN_LABEL: Final = "opensandbox.io/secure-access-token"  # noqa: S105 - the name of the place, not a token
"""Where the gateway looks for it, on the workload's object (docs/wire/kubernetes.md section 4)."""
TOKEN_BYTES: Final = 24


class SecureAccess(Networking):
    """Gives a sandbox that asks for it a token, once: from then on the workload's own label holds it."""

    name = "secure-access"
    secures_access = True

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        if not plan.secure_access or plan.labels.get(TOKEN_LABEL):
            return plan
        return replace(plan, labels={**plan.labels, TOKEN_LABEL: secrets.token_urlsafe(TOKEN_BYTES)})

    def access_token(self, workload: Workload) -> str | None:
        return workload.labels.get(TOKEN_LABEL, "").strip() or None
