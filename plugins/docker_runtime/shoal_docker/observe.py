"""From the engine's list of containers to the workloads that the kernel gets (docs/wire/docker.md sections 7 and 10).

Everything is derived from one answer of ``GET /containers/json``, for one sandbox or for all: the same function makes
the workload that a create returns, that a list holds and that an event brings, so that the three never differ. What a
list does not show is looked up once and remembered in `ContainerEnd`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from shoal.models.workload import Adoption, Phase, Workload
from shoal_docker import labels
from shoal_docker.hosts import LOOPBACK, PublishedHosts, joined

EXECD_PORT: Final = 44772
HTTP_PORT: Final = 8080
PUBLISHED: Final = (EXECD_PORT, HTTP_PORT)
"""Published for every sandbox that is not on the host's own network."""
EGRESS_PORT: Final = 18080
"""The API of a sidecar that keeps a policy."""

Summary = Mapping[str, Any]
"""One entry of ``GET /containers/json``."""
_ENDED: Final = frozenset({"exited", "dead"})


class ContainerEnd(Struct, frozen=True):
    """How a container ended; the list of containers does not say."""

    code: int
    oom: bool
    at: datetime | None
    error: str = ""


class Family(Struct):
    """One sandbox's own container, and those beside it."""

    id: str
    main: Summary | None = None
    sidecars: list[Summary] = []

    @property
    def all(self) -> list[Summary]:
        """Every container of it, the sandbox's own first."""
        return [*([self.main] if self.main else []), *self.sidecars]


class HostAddresses(Struct):
    """Where this server finds what the engine publishes.

    Attributes:
        hosts: for what runs on the engine's own network.
        mapped: for published ports.
        direct: container addresses can be reached from here: the engine is on this machine, and not rootless.
    """

    hosts: PublishedHosts
    mapped: PublishedHosts
    direct: bool


def labels_of(summary: Summary) -> dict[str, str]:
    """The labels of a container; an engine may answer null."""
    return dict(summary.get("Labels") or {})


def state_of(summary: Summary) -> str:
    """``running``, ``paused``, ``created``, ``exited``…; Podman's words as Docker has them."""
    state = str(summary.get("State") or "").lower()
    return {"stopped": "exited", "configured": "created", "initialized": "created", "stopping": "running"}.get(
        state, state
    )


def has_ended(summary: Summary) -> bool:
    """Whether it ran and does not any more."""
    return state_of(summary) in _ENDED


def name_of(summary: Summary) -> str:
    """The container's name."""
    names = summary.get("Names") or [""]
    return str(names[0]).lstrip("/")


def sandbox_of(summary: Summary) -> str | None:
    """The sandbox that a sidecar belongs to; None for a container that is no sidecar."""
    found = labels_of(summary)
    return found.get(labels.SIDECAR_FOR) or found.get(labels.EGRESS_SIDECAR_FOR) or None


def workload(
    family: Family,
    surroundings: HostAddresses,
    ended: Mapping[str, ContainerEnd],
    adoption: Adoption | None = None,
    warning: str | None = None,
    failure: tuple[str, str] | None = None,
) -> Workload:
    """The workload, as its containers show it.

    Args:
        ended: by container id, for every container of the family that has ended.
        warning: something that the status should say besides.
        failure: why a sandbox whose own container runs has failed all the same: reason and message.
    """
    main = family.main
    assert main is not None  # noqa: S101 - a family without a sandbox is no workload
    phase, reason, message = _phase(main, ended)
    if failure is not None and phase in (Phase.RUNNING, Phase.PAUSED):
        phase, reason, message = (Phase.FAILED, *failure)
    own = ended.get(str(main["Id"]))
    found = labels_of(main)
    seen = Workload(
        id=family.id,
        phase=phase,
        reason=reason,
        message=f"{message} {warning}" if warning else message,
        since=own.at if own is not None and has_ended(main) else None,
        labels=labels.reserved(found),
        adoption=adoption,
    )
    return _locate(seen, family, found, surroundings)


def _phase(main: Summary, ended: Mapping[str, ContainerEnd]) -> tuple[Phase, str, str]:
    match state_of(main):
        case "running":
            return Phase.RUNNING, "CONTAINER_RUNNING", "The sandbox's container is running."
        case "paused":
            return Phase.PAUSED, "CONTAINER_PAUSED", "The sandbox's container is paused."
        case "restarting":
            return Phase.RUNNING, "CONTAINER_RESTARTING", "The engine is restarting the sandbox's container."
        case "created" | "starting":
            return Phase.PENDING, "CONTAINER_STARTING", "The sandbox's container has not been started."
        case "removing":
            return Phase.FAILED, "CONTAINER_REMOVING", "The engine is removing the sandbox's container."
        case "exited" | "dead":
            return _outcome(ended.get(str(main["Id"])))
        case other:
            message = f"The engine says that the sandbox's container is {other or 'in no state'}."
            return Phase.FAILED, "CONTAINER_STATE_UNKNOWN", message


def _outcome(how: ContainerEnd | None) -> tuple[Phase, str, str]:
    if how is None:
        return Phase.FAILED, "CONTAINER_STATE_UNKNOWN", "The sandbox's container ended; the engine does not say how."
    if how.oom:
        return Phase.FAILED, "OOM_KILLED", f"The sandbox ran out of memory and ended with exit code {how.code}."
    if how.code == 0:
        return Phase.EXITED, "CONTAINER_EXITED", "The sandbox's command ended with exit code 0."
    why = f": {how.error}" if how.error else "."
    return Phase.FAILED, "CONTAINER_EXITED_ERROR", f"The sandbox's command ended with exit code {how.code}{why}"


def _locate(seen: Workload, family: Family, found: Mapping[str, str], surroundings: HostAddresses) -> Workload:
    """The same with its addresses, taken from the container and not from the present configuration."""
    assert family.main is not None  # noqa: S101 - as in `workload`
    if on_host(family.main):
        host, public = LOOPBACK if surroundings.direct else surroundings.hosts.proxy, surroundings.hosts.public
        agent = agent_port(family.main)
        if agent != EXECD_PORT:
            seen = replace(
                seen, ports={EXECD_PORT: joined(host, agent)}, public_ports={EXECD_PORT: joined(public, agent)}
            )
        return replace(seen, host=host, public_host=public)
    hosts = surroundings.mapped
    owner = _network_owner(family)
    mapped = {port: number for port in PUBLISHED if (number := labels.port(found, _LABEL_OF[port])) is not None}
    mapped = {**_bound(owner or family.main), **mapped}
    proxy_port = mapped.pop(EXECD_PORT, None)
    if proxy_port is not None and owner is not None and _keeps_policy(owner) and _has_execd(found):
        mapped.pop(EGRESS_PORT, None)  # secrets are taken over loopback only; the published port is for the probe

    def at(host: str) -> tuple[dict[int, str], str | None]:
        ports = {port: joined(host, number) for port, number in mapped.items()}
        return ports, None if proxy_port is None else f"{joined(host, proxy_port)}/proxy"

    public_ports, public_proxy = at(hosts.public)
    seen = replace(seen, public_ports=public_ports, public_proxy=public_proxy)
    address = address_of(family.main)
    if surroundings.direct and address is not None:
        return replace(seen, host=address)
    ports, proxy = at(hosts.proxy)
    return replace(seen, ports=ports, proxy=proxy)


def on_host(summary: Summary) -> bool:
    """Whether a container is on the host's own network."""
    return _mode(summary) == "host"


def agent_port(summary: Summary) -> int:
    """Where the agent of a sandbox listens on the host's own network; opensandbox-server has it nowhere else."""
    found = labels_of(summary)
    own = labels.port(found, labels.PROXY_PORT) if found.get(labels.OWN) else None
    return own or EXECD_PORT


_LABEL_OF: Final = {EXECD_PORT: labels.PROXY_PORT, HTTP_PORT: labels.HTTP_PORT}


def _mode(summary: Summary) -> str:
    return str((summary.get("HostConfig") or {}).get("NetworkMode") or "")


def _network_owner(family: Family) -> Summary | None:
    """The container whose network namespace the sandbox has joined; None if it has its own."""
    assert family.main is not None  # noqa: S101 - as in `workload`
    return joined_to(family.main, family.sidecars)


def joined_to(member: Summary, others: Iterable[Summary]) -> Summary | None:
    """Which of the others has the network namespace that a container joined; None if none has."""
    kind, _, owner = _mode(member).partition(":")
    if kind != "container":
        return None
    return next((each for each in others if owner in (each["Id"], name_of(each))), None)


def _keeps_policy(sidecar: Summary) -> bool:
    return bool(labels_of(sidecar).get(labels.EGRESS_SIDECAR_FOR))


def _has_execd(found: Mapping[str, str]) -> bool:
    """Whether ports can be reached behind execd; opensandbox-server gives it to every sandbox."""
    return bool(found.get(labels.EXECD_VOLUME)) or not found.get(labels.OWN)


def _bound(summary: Summary) -> dict[int, int]:
    """TCP port of the container → port of the host, as published just now."""
    return {
        int(entry["PrivatePort"]): int(entry["PublicPort"])
        for entry in summary.get("Ports") or []
        if entry.get("PublicPort") and entry.get("Type", "tcp") == "tcp"
    }


def address_of(summary: Summary) -> str | None:
    """Its own address; that of a user-defined network before the default one's."""
    networks: Mapping[str, Any] = (summary.get("NetworkSettings") or {}).get("Networks") or {}
    found = {name: str(net.get("IPAddress") or net.get("GlobalIPv6Address") or "") for name, net in networks.items()}
    mode = _mode(summary)
    ordered = [found.get(mode, ""), *(found[name] for name in sorted(found, key=lambda name: (name == "bridge", name)))]
    return next(filter(None, ordered), None)


def parse_ended(inspected: Mapping[str, Any]) -> ContainerEnd:
    """From the engine's description of a container."""
    state = inspected.get("State") or {}
    return ContainerEnd(
        code=int(state.get("ExitCode") or 0),
        oom=bool(state.get("OOMKilled")),
        at=stamp(str(state.get("FinishedAt") or "")),
        error=str(state.get("Error") or "").strip(),
    )


def stamp(text: str) -> datetime | None:
    """An engine's time, its fraction cut to microseconds; None for none (the engine says year 1) or nonsense."""
    head, dot, tail = text.strip().partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        text = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if when.year < 1970 else when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
