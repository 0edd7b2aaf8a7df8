"""Texts for the diagnostics routes, in the layout of docs/wire/docker.md section 13."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

from shoal.kit import MASK
from shoal.models.workload import Phase, Workload
from shoal_local.network.modes import WORDS as NETWORKS
from shoal_local.state.box import Event, Spec, Started

SHOWN: Final = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TERM", "TZ", "USER", "SHELL", "OPENSANDBOX_ID"})
"""The variables whose values may be shown; any other may hold a secret, whatever its name."""
_WIDTH: Final = 17


def masked(env: Mapping[str, str]) -> dict[str, str]:
    """The environment as it may be kept and shown."""
    return {name: value if name in SHOWN else MASK for name, value in env.items()}


def inspect(
    spec: Spec,
    workload: Workload,
    started: Started | None,
    ended: tuple[int, datetime] | None,
    isolation: Mapping[str, str],
    hint: str | None = None,
) -> str:
    """One sandbox, as this runtime sees it; ``hint`` is what would give it a way to the internet."""
    running = workload.phase in (Phase.RUNNING, Phase.PAUSED)
    rows = {
        "Sandbox ID": spec.id,
        "Image": spec.adoption.image or "",
        **({"Snapshot": spec.adoption.snapshot_id} if spec.adoption.snapshot_id else {}),
        "Command": " ".join(spec.adoption.entrypoint),
        "Working Dir": spec.workdir,
        "Status": workload.phase.value,
        "Running": str(running).lower(),
        "Paused": str(workload.phase is Phase.PAUSED).lower(),
        "OOMKilled": str(workload.reason == "OOM_KILLED").lower(),
        "Pid": str((started.init or started.top).pid) if started is not None and running else "0",
        "User": f"{spec.uid}:{spec.gid} on this machine",
        "Exit Code": "" if ended is None else str(ended[0]),
        "Created At": _time(spec.adoption.created_at),
        "Started At": "" if started is None else _time(started.at),
        "Finished At": "" if ended is None or running else _time(ended[1]),
    }
    lines = [_row(name, value) for name, value in rows.items()]
    lines += _block("Isolation", isolation)
    lines += _block("Limits", _limits(spec))
    lines += _block("Network", {"Mode": NETWORKS[spec.network], **({"Hint": hint} if hint else {})})
    if spec.volumes:
        lines += ["Volumes:", *(f"  {volume}" for volume in spec.volumes)]
    lines += ["Labels:", *(f"  {key}={value}" for key, value in sorted(spec.adoption.metadata.items()))]
    lines += ["Environment:", *(f"  {name}={value}" for name, value in spec.env.items())]
    return "\n".join(lines)


def events(spec: Spec, workload: Workload, found: list[Event], limit: int) -> str:
    """What befell the sandbox, at most ``limit`` lines, the newest kept."""
    head = [_row("Sandbox", spec.id), _row("Status", workload.phase.value)]
    shown = [_line(event) for event in found]
    lines = [*head, *shown] if shown else [*head, "(no notable events)"]
    if len(lines) <= limit:
        return "\n".join(lines)
    return "\n".join(lines[:limit] if limit <= len(head) else [*head, *shown[len(head) - limit :]])


def _limits(spec: Spec) -> dict[str, str]:
    limits, enforced = spec.limits, spec.enforced
    asked = {
        "CPU": (None if limits.cpu is None else f"{limits.cpu:.2f} cores", enforced.cpu),
        "Memory": (None if limits.memory is None else f"{limits.memory / 2**20:.0f} MiB", enforced.memory),
        "Disk": (None if limits.disk is None else f"{limits.disk / 2**20:.0f} MiB", enforced.disk),
        "PIDs": (str(limits.pids) if limits.pids else None, enforced.pids),
    }
    return {name: _limit(value, by) for name, (value, by) in asked.items()}


def _limit(value: str | None, by: str | None) -> str:
    if value is None:
        return "unlimited"
    return f"{value}, {'NOT enforced' if by is None else f'enforced by {by}'}"


def _line(event: Event) -> str:
    return f"{'Event:':<{_WIDTH - 1}}[{_time(event.at)}] {event.kind}{f': {event.message}' if event.message else ''}"


def _block(title: str, rows: Mapping[str, str]) -> Iterable[str]:
    return [f"{title}:", *(f"  {_row(name, value, _WIDTH - 3)}" for name, value in rows.items())]


def _row(name: str, value: str, width: int = _WIDTH - 1) -> str:
    return f"{name + ':':<{width}}{value}".rstrip()


def _time(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")
