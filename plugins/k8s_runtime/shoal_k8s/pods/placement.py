"""Where a pod may run: what a request and a template file say of it must agree (docs/wire/kubernetes.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import PlatformSpec
from shoal_k8s.pods.defaults import PodDefaults
from shoal_k8s.pods.objects import Pod

OS, ARCH = "kubernetes.io/os", "kubernetes.io/arch"
GVISOR: Final = "gvisor"
_SCARCE: Final = ("insufficient", "too many pods", "resource")


def selector(platform: PlatformSpec | None) -> dict[str, str]:
    """The node selector of a platform; a Windows guest's pod is a Linux one."""
    if platform is None:
        return {}
    return {**({} if platform.os == "windows" else {OS: platform.os}), ARCH: platform.arch}


def check(plan: WorkloadPlan, template: Mapping[str, Any], defaults: PodDefaults) -> None:
    """Raise InvalidRequest for a plan that the template's pod spec, merged under it, would contradict."""
    if plan.network.policy is not None:
        _check_policy(template, defaults)
    taken = {volume.get("name") for volume in _rows(template, "volumes")}
    for volume in plan.volumes:
        if volume.name in taken:
            raise _refused(f"The volume name {volume.name!r} is taken by the server's pod template.")
    wanted = selector(plan.platform)
    for key, value in wanted.items():
        if (template.get("nodeSelector") or {}).get(key, value) != value:
            raise _refused(f"platform: this server's pod template asks for another {key}.")
    terms = _required(template)
    if wanted and terms and not any(_allows(term, wanted) for term in terms):
        raise _refused("platform: the node affinity of this server's pod template does not allow it.")


def _check_policy(template: Mapping[str, Any], defaults: PodDefaults) -> None:
    if defaults.gvisor or GVISOR in (defaults.runtime_class, template.get("runtimeClassName")):
        raise _refused("networkPolicy cannot be kept on gVisor.")


def _required(template: Mapping[str, Any]) -> list[dict[str, Any]]:
    node = (template.get("affinity") or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return _rows(required, "nodeSelectorTerms")


def _allows(term: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(_fits(rule, wanted[rule["key"]]) for rule in _rows(term, "matchExpressions") if rule["key"] in wanted)


def _fits(rule: Mapping[str, Any], value: str) -> bool:
    match rule.get("operator"):
        case "In":
            return value in rule.get("values", [])
        case "NotIn":
            return value not in rule.get("values", [])
        case "DoesNotExist":
            return False
    return True


def _rows(thing: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    return [row for row in thing.get(field) or [] if isinstance(row, dict)]


def hopeless(pod: Pod, said: str) -> bool:
    """Whether a pod is not scheduled because no node is of its platform, in the scheduler's words.

    What it says of preemption is no reason of its own; a node that is only full is one that may do later.
    """
    keys = set(pod.spec.node_selector)
    if not keys & {OS, ARCH}:
        return False
    reasons = said.partition("preemption:")[0].lower()
    if any(word in reasons for word in _SCARCE):
        return False
    if OS in reasons or ARCH in reasons:
        return True
    others = keys - {OS, ARCH} or pod.spec.affinity is not None
    return not others and "didn't match" in reasons and ("affinity" in reasons or "selector" in reasons)


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, message)
