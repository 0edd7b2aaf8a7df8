"""`EgressPolicy`: a policy becomes a sidecar, and the sidecar's API the place where the policy is read and changed."""

from __future__ import annotations

import secrets
from typing import Final

from msgspec.structs import replace

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Networking, PolicyTarget
from shoal_egress.config import EgressSettings
from shoal_egress.rules import TRANSPARENT, check, split, warnings
from shoal_egress.sidecar import AUTH_HEADER, NAME, POLICY_PATH, PORT, egress_sidecar

TOKEN_LABEL: Final = "opensandbox.io/egress-auth-token"  # noqa: S105 - the name of a label
"""On the workload; its presence shows that there is a sidecar (docs/wire/docker.md section 3)."""
TOKEN_BYTES: Final = 24
CAPABILITY: Final = "NET_ADMIN"
"""With it, a sandbox could undo what the sidecar does to their network."""


class EgressPolicy(Networking):
    """Egress policy for every runtime that knows sidecars."""

    name = "egress_policy"
    keeps_policies = True

    def __init__(self, settings: EgressSettings) -> None:
        self._settings = settings

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        """The plan with a sidecar, if it has a policy; unchanged if it has the sidecar already.

        Raises InvalidRequest for a policy that cannot be kept.
        """
        amended = any(sidecar.name == NAME and sidecar.trusted for sidecar in plan.sidecars)
        if plan.network.policy is None or amended:
            return plan
        env, passed = split(plan.env)
        check(plan, self._settings, passed)
        if plan.credential_proxy:
            env[TRANSPARENT] = "true"
        token = plan.labels.get(TOKEN_LABEL) or secrets.token_urlsafe(TOKEN_BYTES)
        return replace(
            plan,
            env=env,
            sidecars=[egress_sidecar(plan, self._settings, token, passed), *plan.sidecars],
            drop_capabilities=[*(each for each in plan.drop_capabilities if each != CAPABILITY), CAPABILITY],
            labels={**plan.labels, TOKEN_LABEL: token},
            warnings=[*plan.warnings, *warnings(plan, self._settings)],
        )

    def headers(self, workload: Workload, port: int) -> dict[str, str]:
        """The token, for the sidecar's own port."""
        token = workload.labels.get(TOKEN_LABEL)
        return {AUTH_HEADER: token} if token and port == PORT else {}

    def policy(self, workload: Workload) -> PolicyTarget | None:
        """The sidecar's API; None without a sidecar."""
        token = workload.labels.get(TOKEN_LABEL)
        return PolicyTarget(PORT, POLICY_PATH, {AUTH_HEADER: token}) if token else None
