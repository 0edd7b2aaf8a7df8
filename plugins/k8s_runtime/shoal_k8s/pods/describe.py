"""The texts of a pod's diagnostics (docs/wire/kubernetes.md section 19)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shoal.kit import mask
from shoal_k8s import names
from shoal_k8s.pods.objects import Container, ContainerStatus, KubeEvent, Pod

_WIDTH: Final = 16


def events_text(events: Iterable[KubeEvent], limit: int) -> str:
    """``[time] type reason message``, in the API server's order; ``(no events)`` when there is none."""
    lines = [
        f"[{event.last_timestamp or event.event_time or event.metadata.creation_timestamp or '-'}] "
        f"{event.type or '-':<8} {event.reason or '-':<20} {(event.message or '').strip()}"
        for event in events
    ]
    return "\n".join(lines[-limit:]) or "(no events)"


def inspect_text(pod: Pod) -> str:
    """The pod for people; what looks like a secret is masked."""
    facts = {
        "Pod Name:": pod.metadata.name,
        "Namespace:": pod.metadata.namespace,
        "Node:": pod.spec.node_name or "(not scheduled)",
        "Phase:": pod.status.phase,
        "Pod IP:": pod.status.pod_ip or "(none)",
        "Host IP:": pod.status.host_ip or "(none)",
        "Start Time:": pod.status.start_time or "(not started)",
        **({"Runtime Class:": pod.spec.runtime_class_name} if pod.spec.runtime_class_name else {}),
    }
    lines = [f"{name:<{_WIDTH}}{value}" for name, value in facts.items()]
    lines += _block("Containers:", _containers(pod.spec.containers, pod.status.container_statuses))
    if pod.spec.init_containers:
        lines += _block("Init Containers:", _containers(pod.spec.init_containers, pod.status.init_container_statuses))
    lines += _block(
        "Conditions:", (f"{each.type}: {each.status} {each.reason or ''}".rstrip() for each in pod.status.conditions)
    )
    lines += _block("Labels:", (f"{key}={value}" for key, value in sorted(pod.metadata.labels.items())))
    lines += _block("Annotations:", (f"{key}={mask(key, value)}" for key, value in sorted(_ours(pod).items())))
    lines += _block("Resources:", _resources(pod.spec.containers))
    return "\n".join(lines)


def _containers(containers: list[Container], statuses: list[ContainerStatus]) -> Iterable[str]:
    seen = {status.name: status for status in statuses}
    for container in containers:
        status = seen.get(container.name)
        yield f"{container.name}: {container.image}, {_state(status)}"


def _state(status: ContainerStatus | None) -> str:
    if status is None:
        return "not started"
    state = status.state
    if state.running is not None:
        return f"running since {state.running.started_at or '?'}, {'ready' if status.ready else 'not ready'}"
    if state.terminated is not None:
        return f"ended with exit code {state.terminated.exit_code} ({state.terminated.reason or '-'})"
    return f"waiting ({state.waiting.reason if state.waiting else 'unknown'})"


def _resources(containers: list[Container]) -> Iterable[str]:
    for container in containers:
        for kind, quantities in (("limits", container.resources.limits), ("requests", container.resources.requests)):
            if quantities:
                said = ", ".join(f"{name}={value}" for name, value in sorted(quantities.items()))
                yield f"{container.name} {kind}: {said}"


def _ours(pod: Pod) -> dict[str, str]:
    return {key: value for key, value in pod.metadata.annotations.items() if key.startswith(names.PREFIX)}


def _block(title: str, rows: Iterable[str]) -> list[str]:
    rows = list(rows)
    return ["", title, *(f"  {row}" for row in rows)] if rows else ["", title, "  (none)"]
