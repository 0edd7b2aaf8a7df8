"""What a runtime reports: the workload as its engine sees it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from shoal.models.frozen import EMPTY_DICT, Frozen
from shoal.models.requests import PlatformSpec


class Phase(StrEnum):
    """The engine's word for a workload, mapped by the runtime."""

    PENDING = "pending"
    """On its way to its first start; of one that has run already it says nothing."""
    RESTARTING = "restarting"
    """Ended, or lost its place, and the engine will start it again by itself."""
    RUNNING = "running"
    PAUSING = "pausing"
    """The engine was asked to pause it and has not done so yet."""
    PAUSED = "paused"
    RESUMING = "resuming"
    """Likewise."""
    EXITED = "exited"
    """Ended by itself with exit code 0."""
    FAILED = "failed"
    """Ended by itself with another exit code, or could not start."""
    STOPPING = "stopping"
    """Somebody else had the engine remove it, and something holds it there; it never runs again."""


class Adoption(Frozen, kw_only=True, frozen=True):
    """What the engine holds of a sandbox that the store has no record of (another server made it, a store was lost).

    Attributes:
        created_at: of the sandbox (UTC), `WorkloadPlan.created_at`.
        entrypoint: `WorkloadPlan.command`.
        image, snapshot_id, platform, metadata, extensions: as in the plan, as far as the engine keeps them.
        expires_at: None means manual clean-up, never "unknown": a runtime that does not know leaves the workload out.
        purge_at: given for a create that failed, of which the engine keeps the memory alone (`SharedTruth.remember`):
            when that ends.
    """

    created_at: datetime
    entrypoint: list[str]
    expires_at: datetime | None = None
    purge_at: datetime | None = None
    image: str | None = None
    snapshot_id: str | None = None
    platform: PlatformSpec | None = None
    metadata: dict[str, str] = EMPTY_DICT
    extensions: dict[str, str] = EMPTY_DICT


class Tunnel(NamedTuple):
    """A port to which `Runtime.connect` is the only way."""

    sandbox_id: str
    port: int


class Workload(Frozen, kw_only=True, frozen=True):
    """One workload, as last seen.

    Attributes:
        id: the sandbox id.
        phase: what the engine says of it, in the kernel's words.
        reason, message: for the public status; ``reason`` is one CamelCase or UPPER_CASE word.
        since: when the engine says that the phase began; None when it does not say.
        host: address at which the server itself reaches the sandbox's ports; None while there is none.
        ports: sandbox port → ``host:port``, for ports that are not simply ``{host}:{port}``:
            ``{8080: "10.0.0.7:31000"}``, an IPv6 host in brackets. It comes before ``host``, which may be None.
        proxy: ``host:port/prefix`` behind which every other port is found as ``/{port}``, where ``host`` is None. It is
            the agent's: requests carry its token.
        tunnelled: its ports have no address: `Runtime.connect` is the way to them. ``ports`` may still name exceptions.
        public_host, public_ports, public_proxy: the same for clients, where it differs from how the server reaches it.
        headers: what requests to its ports must carry (an access token); part of every endpoint, never logged.
        labels: what plugins had attached (`WorkloadPlan.labels`), as the engine holds it; may be secret, never logged.
        pool: the engine's own pool that it was allocated from, once that is certain; None for every other.
        adoption: given whenever the engine knows enough to rebuild a record.
    """

    id: str
    phase: Phase
    reason: str | None = None
    message: str | None = None
    since: datetime | None = None
    host: str | None = None
    ports: dict[int, str] = EMPTY_DICT
    proxy: str | None = None
    tunnelled: bool = False
    public_host: str | None = None
    public_ports: dict[int, str] = EMPTY_DICT
    public_proxy: str | None = None
    headers: dict[str, str] = EMPTY_DICT
    labels: dict[str, str] = EMPTY_DICT
    pool: str | None = None
    adoption: Adoption | None = None

    def address(self, port: int) -> str | None:
        """``host:port[/prefix]`` at which the server reaches ``port``; None while the workload has no address."""
        return _find(port, self.ports, self.host, self.proxy)

    def way(self, port: int) -> str | Tunnel | None:
        """How the server reaches ``port``: its address, or a tunnel; None while it cannot."""
        return self.address(port) or (Tunnel(self.id, port) if self.tunnelled else None)

    def public_address(self, port: int) -> str | None:
        """``host:port[/prefix]`` for clients; falls back to `address`."""
        return _find(port, self.public_ports, self.public_host, self.public_proxy) or self.address(port)

    def public_way(self, port: int) -> str | Tunnel | None:
        """`way`, with the address for clients where it has one of its own."""
        return self.public_address(port) or self.way(port)

    def leads_by_proxy(self, address: str, port: int) -> bool:
        """Whether that address of the port goes through ``proxy`` or ``public_proxy``."""
        return address in (_behind(self.proxy, port), _behind(self.public_proxy, port))

    def __repr__(self) -> str:
        """Only what identifies it: headers and labels may hold secrets."""
        return f"Workload(id={self.id!r}, phase={self.phase.value!r}, reason={self.reason!r})"


class WorkloadGone(Frozen, kw_only=True, frozen=True):
    """A watch's word that a workload no longer exists on the engine."""

    id: str


def _find(port: int, ports: dict[int, str], host: str | None, proxy: str | None) -> str | None:
    if port in ports:
        return ports[port]
    if host is not None:
        return _join(host, port)
    return _behind(proxy, port)


def _behind(proxy: str | None, port: int) -> str | None:
    return None if proxy is None else f"{proxy}/{port}"


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
