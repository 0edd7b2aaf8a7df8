"""The settings of the sandbox and its sidecar, and rules that cannot be enforced (docs/wire/docker.md section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.opensandbox import EGRESS_PREFIX, EGRESS_VARIABLES
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import NetworkPolicy
from shoal_egress.config import EgressSettings

TRANSPARENT: Final = EGRESS_PREFIX + "MITMPROXY_TRANSPARENT"
SSL_INSECURE: Final = EGRESS_PREFIX + "MITMPROXY_SSL_INSECURE"
_TRUE: Final = frozenset({"1", "true", "yes", "y", "on"})
"""What the sidecar reads as true, in any case."""
_ACTIONS: Final = frozenset({"allow", "deny"})
_NAMED: Final = 3
"""How many addresses a warning names."""

Environment = Mapping[str, str | None]


def split(env: Environment) -> tuple[dict[str, str | None], dict[str, str]]:
    """The sandbox's environment, and what of it is for the sidecar instead; null is empty there.

    `TRANSPARENT` goes to both: the sandbox's bootstrap then waits for the sidecar's certificate. Raises InvalidRequest
    for a variable that only the server sets.
    """
    sandbox: dict[str, str | None] = {}
    sidecar: dict[str, str] = {}
    for name, value in env.items():
        if not name.startswith(EGRESS_PREFIX):
            sandbox[name] = value
            continue
        if name not in EGRESS_VARIABLES:
            raise _refused(f"env: {name[:64]!r} cannot be set by a request.")
        sidecar[name] = value or ""
        if name == TRANSPARENT:
            sandbox[name] = value
    return sandbox, sidecar


def check(plan: WorkloadPlan, settings: EgressSettings, sidecar_env: Environment) -> None:
    """Raise InvalidRequest if the plan's policy cannot be kept with these settings."""
    if settings.image is None:
        raise _refused("networkPolicy: this server has no egress.image configured.")
    if plan.network.mode not in (None, "bridge"):
        raise _refused(f"networkPolicy cannot be kept on the network {plan.network.mode!r}.")
    if plan.credential_proxy and settings.mode != "dns+nft":
        raise _refused('credentialProxy needs egress.mode = "dns+nft" on this server.')
    if plan.credential_proxy and sidecar_env.get(SSL_INSECURE):
        raise _refused(f"env: {SSL_INSECURE} cannot be set with credentialProxy.")
    if plan.network.policy is not None:
        _check_policy(plan.network.policy)
    if settings.upstream_proxy is None:
        return
    if is_true(sidecar_env.get(SSL_INSECURE)):
        raise _refused(f"env: {SSL_INSECURE} cannot be set on this server, which has an upstream proxy.")
    if not plan.credential_proxy and not is_true(sidecar_env.get(TRANSPARENT)):
        raise _refused(
            f"networkPolicy needs credentialProxy or {TRANSPARENT}=true on this server, which has an upstream proxy."
        )


def warnings(plan: WorkloadPlan, settings: EgressSettings) -> list[str]:
    """What of the plan's policy the sidecar takes and does not keep, as sentences for the caller."""
    rules = plan.network.policy.egress if plan.network.policy is not None else []
    addresses = [rule.target.strip() for rule in rules if _is_address(rule.target)]
    if settings.mode == "dns+nft" or not addresses:
        return []
    named = ", ".join(addresses[:_NAMED]) + (", …" if len(addresses) > _NAMED else "")
    return [f"networkPolicy: only names are filtered on this server, not addresses and ranges ({named})."]


def _check_policy(policy: NetworkPolicy) -> None:
    """Raise InvalidRequest for what the sidecar would not start with."""
    if _word(policy.default_action) not in _ACTIONS:
        raise _refused('networkPolicy.defaultAction must be "allow" or "deny".')
    for index, rule in enumerate(policy.egress):
        if _word(rule.action) not in _ACTIONS:
            raise _refused(f'networkPolicy.egress[{index}].action must be "allow" or "deny".')
        if not rule.target.strip():
            raise _refused(f"networkPolicy.egress[{index}].target must not be blank.")


def _word(action: str | None) -> str:
    """As the sidecar reads it; absent and blank are deny."""
    return (action or "").strip().lower() or "deny"


def _is_address(target: str) -> bool:
    try:
        ip_network(target.strip(), strict=False)
    except ValueError:
        return False
    return True


def is_true(value: str | None) -> bool:
    """Whether the sidecar reads the value as true."""
    return (value or "").strip().lower() in _TRUE


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, message)
