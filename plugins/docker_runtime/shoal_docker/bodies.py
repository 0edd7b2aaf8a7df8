"""The bodies of ``POST /containers/create``: for a sandbox and for a sidecar. Pure functions over what was prepared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct

from shoal.models.plan import Sidecar, WorkloadPlan
from shoal_docker import labels
from shoal_docker.observe import EXECD_PORT, HTTP_PORT, PUBLISHED
from shoal_docker.volumes.pins import Placed

RUNTIME_DIR: Final = "/opt/opensandbox"
STOP_SECONDS: Final = 9
"""Between a sidecar's SIGTERM and SIGKILL; one that a caller asked for gets none."""

Body = dict[str, Any]


class Attachment(Struct, kw_only=True):
    """How one container is attached to the network.

    Attributes:
        mode: the engine's NetworkMode.
        published: ``8080/tcp`` → port of the host; empty for a container that has no network of its own.
        host_ip: the address they are published on.
    """

    mode: str
    published: dict[str, int] = {}
    host_ip: str = ""


class Parts(Struct, kw_only=True):
    """What was prepared for a sandbox's own container.

    Attributes:
        image: what the engine runs.
        image_id: of that image.
        carried: labels of that image.
        platform: ``os/arch`` for the create call; None leaves it out.
        invocation: what of the body says what to run.
        host: the rest of the HostConfig: limits and security.
        labels: those of the volumes.
        placed: sources of mounts, to be compared with what is mounted once it has started.
    """

    image: str
    image_id: str = ""
    carried: dict[str, str] = {}
    platform: str | None = None
    invocation: dict[str, Any] = {}
    env: list[str] = []
    binds: list[str] = []
    mounts: list[dict[str, Any]] = []
    host: dict[str, Any] = {}
    labels: dict[str, str] = {}
    placed: list[Placed] = []


class SidecarParts(Struct, kw_only=True):
    """What was prepared for one sidecar; the fields as in `Parts`."""

    image: str
    carried: dict[str, str] = {}
    mounts: list[dict[str, Any]] = []
    host: dict[str, Any] = {}
    placed: list[Placed] = []


def wanted_ports(plan: WorkloadPlan, extra: Iterable[str] = ()) -> list[str]:
    """The ports that the network's owner publishes, as ``8080/tcp``, without repetition."""
    numbers = [*PUBLISHED, *plan.network.publish, *(port for sidecar in plan.sidecars for port in sidecar.ports)]
    return list(dict.fromkeys([*(f"{number}/tcp" for number in numbers), *extra]))


def sandbox_body(plan: WorkloadPlan, parts: Parts, network: Attachment, published: Mapping[str, int]) -> Body:
    """The sandbox's own container.

    Args:
        published: the ports of the sandbox as the host knows them, whichever container of it publishes them.
    """
    bears = {**labels.of_sandbox(plan), **parts.labels}
    for key, port in ((labels.PROXY_PORT, EXECD_PORT), (labels.HTTP_PORT, HTTP_PORT)):
        if f"{port}/tcp" in published:
            bears[key] = str(published[f"{port}/tcp"])
    return {
        "Image": parts.image,
        "Env": parts.env,
        "Labels": labels.blanked(parts.carried, bears),
        "HostConfig": {**parts.host, **_network(network), "Binds": parts.binds, "Mounts": parts.mounts},
        **parts.invocation,
        **_exposed(network),
    }


def sidecar_body(plan: WorkloadPlan, sidecar: Sidecar, parts: SidecarParts, network: Attachment) -> Body:
    """A container beside it."""
    bears = labels.of_sidecar(plan.id, sidecar.name, sidecar.labels, first=sidecar.first)
    host = {**parts.host, **_network(network), "Mounts": parts.mounts}
    if sidecar.capabilities:
        host["CapAdd"] = list(sidecar.capabilities)
    if sidecar.sysctls:
        host["Sysctls"] = dict(sidecar.sysctls)
    body: Body = {
        "Image": parts.image,
        "Env": [f"{key}={value}" for key, value in sidecar.env.items()],
        "Labels": labels.blanked(parts.carried, bears),
        "StopTimeout": STOP_SECONDS if sidecar.trusted else 0,
        "HostConfig": host,
        **_exposed(network),
    }
    if sidecar.command is not None:
        body |= {"Entrypoint": [], "Cmd": sidecar.command}
    return body


def _network(network: Attachment) -> dict[str, Any]:
    fields: dict[str, Any] = {"NetworkMode": network.mode}
    if network.published:
        fields["PortBindings"] = {
            port: [{"HostIp": network.host_ip, "HostPort": str(number)}] for port, number in network.published.items()
        }
    return fields


def _exposed(network: Attachment) -> dict[str, Any]:
    return {"ExposedPorts": {port: {} for port in network.published}} if network.published else {}
