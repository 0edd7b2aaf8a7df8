"""The workload plan: everything that a runtime may be asked to realise, in no engine's words.

A create request, once validated, becomes a plan. Networking and other plugins amend it; the runtime realises it. The
plan is durable until the workload runs, so that a create survives ``kill -9``; then it is forgotten, with the secrets
in it.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct, field

from shoal.models.requests import ImageAuth, Lifecycle, NetworkPolicy, PlatformSpec, Volume


class Sidecar(Struct, kw_only=True, omit_defaults=True):
    """A container beside the sandbox that shares its network and lives, pauses and dies with it."""

    name: str
    image: str
    command: list[str] | None = None
    env: dict[str, str] = {}
    ports: list[int] = []
    resource_limits: dict[str, str] = {}
    capabilities: list[str] = []


class NetworkPlan(Struct, kw_only=True, omit_defaults=True):
    """How the workload is attached; every field is a wish that a networking plugin may change.

    Attributes:
        mode: the runtime's own word for a network; None leaves it to the runtime's configuration.
        policy: the caller's egress policy; a networking plugin turns it into a sidecar.
        publish: ports of the sandbox that must be reachable from outside, besides the runtime's own.
    """

    mode: str | None = None
    policy: NetworkPolicy | None = None
    publish: list[int] = []


class WorkloadPlan(Struct, kw_only=True, omit_defaults=True):
    """One sandbox, ready to be realised.

    Attributes:
        id: the sandbox id, UUID4 with hyphens; a runtime names its workload after it, so that creating twice is one.
        image, image_auth: what to run from, as the caller wrote it; None when ``snapshot_image`` is set.
        snapshot_id, snapshot_image: the snapshot restored from, and the runtime's own reference to its content.
        command: the sandbox's own command, never empty.
        env: null means "unset it", where the runtime can.
        resource_limits, resource_requests: Kubernetes-style quantities (``cpu``, ``memory``, ``gpu``), free-form keys.
        labels: what plugins want attached to the workload, besides ``metadata``.
    """

    id: str
    runtime: str
    created_at: datetime
    command: list[str]
    expires_at: datetime | None = None
    image: str | None = None
    image_auth: ImageAuth | None = None
    snapshot_id: str | None = None
    snapshot_image: str | None = None
    env: dict[str, str | None] = {}
    resource_limits: dict[str, str] = {}
    resource_requests: dict[str, str] = {}
    platform: PlatformSpec | None = None
    volumes: list[Volume] = []
    network: NetworkPlan = field(default_factory=NetworkPlan)
    sidecars: list[Sidecar] = []
    lifecycle: Lifecycle | None = None
    credential_proxy: bool = False
    secure_access: bool = False
    metadata: dict[str, str] = {}
    extensions: dict[str, str] = {}
    labels: dict[str, str] = {}

    def __repr__(self) -> str:
        """Only what identifies it: env, volumes and credentials may hold secrets."""
        return f"WorkloadPlan(id={self.id!r}, runtime={self.runtime!r}, image={self.image!r})"
