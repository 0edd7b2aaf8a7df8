"""The workload plan: everything that a runtime may be asked to realise, in no engine's words.

A create request, once validated, becomes a plan. Networking and other plugins amend it; the runtime realises it. The
plan is durable until the workload runs, so that a create survives ``kill -9``; then it is forgotten, with the secrets
in it.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import field

from shoal.models.entrypoint import words
from shoal.models.frozen import EMPTY_DICT, EMPTY_LIST, Frozen
from shoal.models.requests import ImageAuth, LifecycleHooks, NetworkPolicy, PlatformSpec, Volume


class Probe(Frozen, kw_only=True, omit_defaults=True, frozen=True):
    """``GET :{port}{path}`` from the server; ready once it answers 2xx, within ``timeout_seconds`` in all.

    Attributes:
        port: of the sidecar.
        path: with its leading slash.
        headers: of each request.
        timeout_seconds: for all tries together; then the create fails.
    """

    port: int
    path: str
    headers: dict[str, str] = EMPTY_DICT
    timeout_seconds: float = 30.0


class SecretFile(Frozen, kw_only=True, frozen=True):
    """One entry of a secret that the engine itself keeps, as a file to read; for engines that keep secrets."""

    secret: str
    key: str
    path: str


class Sidecar(Frozen, kw_only=True, omit_defaults=True, frozen=True):
    """A container beside the sandbox that shares its network and lives, pauses and dies with it.

    Attributes:
        name: unique within the plan, a DNS label; its container is named after it and the sandbox.
        image, image_auth: what it runs from; credentials are for this create only.
        env, resource_limits, resource_requests: as in `WorkloadPlan`, and the sidecar's own.
        command: None keeps the image's own entrypoint and command.
        ports: those that must be reachable from outside, besides the sandbox's own.
        capabilities: Linux capabilities to add, without ``CAP_``.
        trusted: comes from the operator's configuration, not from a caller: runs without the hardening of sandboxes.
        first: starts, and is ready, before the sandbox's own container, which joins its network.
        ready: when it counts as started; None: as soon as it runs.
        sysctls: set where the engine takes them; one that refuses them runs it without.
        volumes: mounted into the sidecar alone; a trusted one's are the operator's, whatever paths callers may use.
        secret_files: likewise.
        shares_runtime_dir: sees the directory that holds the agent (docs/wire/docker.md section 2), read-write, as the
            sandbox does.
        labels: on its own container.
    """

    name: str
    image: str
    image_auth: ImageAuth | None = None
    command: list[str] | None = None
    env: dict[str, str] = EMPTY_DICT
    ports: list[int] = EMPTY_LIST
    resource_limits: dict[str, str] = EMPTY_DICT
    resource_requests: dict[str, str] = EMPTY_DICT
    capabilities: list[str] = EMPTY_LIST
    trusted: bool = False
    first: bool = False
    ready: Probe | None = None
    sysctls: dict[str, str] = EMPTY_DICT
    volumes: list[Volume] = EMPTY_LIST
    secret_files: list[SecretFile] = EMPTY_LIST
    shares_runtime_dir: bool = False
    labels: dict[str, str] = EMPTY_DICT

    def __repr__(self) -> str:
        """Only what identifies it: env may hold secrets."""
        return f"Sidecar(name={self.name!r}, image={self.image!r})"


class NetworkPlan(Frozen, kw_only=True, omit_defaults=True, frozen=True):
    """How the workload is attached; every field is a wish that a networking plugin may change.

    Attributes:
        mode: the runtime's own word for a network; None leaves it to the runtime's configuration.
        policy: the caller's network policy; a networking plugin turns it into a sidecar.
        publish: TCP ports of the sandbox, as numbers, that must be reachable from outside, besides the runtime's own.
            No client sets it: networking plugins do. A runtime all of whose ports can be reached need do nothing;
            another one maps each and reports where in `Workload.ports`.
    """

    mode: str | None = None
    policy: NetworkPolicy | None = None
    publish: list[int] = EMPTY_LIST


class WorkloadPlan(Frozen, kw_only=True, omit_defaults=True, frozen=True):
    """One sandbox, ready to be realised.

    Attributes:
        id: the sandbox id, UUID4 with hyphens; a runtime names its workload after it, so that creating twice is one.
        runtime: `Runtime.name` of the runtime that it is for.
        created_at, expires_at: UTC; no expiry means manual clean-up. The kernel ends the sandbox, not the runtime.
        image, image_auth: what to run from, as the caller wrote it; None when ``snapshot_image`` is set.
        snapshot_id, snapshot_image: the snapshot restored from, and the runtime's own reference to its content.
        command: the sandbox's own command as the caller wrote it, never empty; `argv` is what to run.
        env: the sandbox's variables; they win over the image's and over those of the runtime's configuration. None for
            one takes it away, also where image or configuration sets it; a runtime that cannot do that sets it empty.
        resource_limits, resource_requests: quantities (`shoal.kit`) (``cpu``, ``memory``, ``gpu``), free-form keys.
        platform: what the caller asked for; one of ``Capabilities.platforms``.
        volumes: what to mount; only kinds that are among ``Capabilities.volumes``.
        network, sidecars: as the networking plugins left them.
        lifecycle: commands before the sandbox's own and at intervals; the agent runs them.
        credential_proxy: the caller wants credentials added to what it sends out; for networking plugins.
        secure_access: its ports want an access token; for networking plugins.
        metadata: the caller's labels; a runtime whose engine has such things attaches them.
        extensions: the caller's, whole; what a runtime does not know it ignores.
        drop_capabilities: Linux capabilities that the sandbox's own container must not have, besides the runtime's own.
        labels: what plugins want attached to the workload, besides ``metadata``; reported back as `Workload.labels`.
        warnings: what the caller asked for and gets only in part, a sentence each: part of the create's answer.
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
    env: dict[str, str | None] = EMPTY_DICT
    resource_limits: dict[str, str] = EMPTY_DICT
    resource_requests: dict[str, str] = EMPTY_DICT
    platform: PlatformSpec | None = None
    volumes: list[Volume] = EMPTY_LIST
    network: NetworkPlan = field(default_factory=NetworkPlan)
    sidecars: list[Sidecar] = EMPTY_LIST
    lifecycle: LifecycleHooks | None = None
    credential_proxy: bool = False
    secure_access: bool = False
    metadata: dict[str, str] = EMPTY_DICT
    extensions: dict[str, str] = EMPTY_DICT
    drop_capabilities: list[str] = EMPTY_LIST
    labels: dict[str, str] = EMPTY_DICT
    warnings: list[str] = EMPTY_LIST

    @property
    def argv(self) -> list[str]:
        """The words of the command: a single one that holds a space is a command line."""
        return words(self.command)

    def __repr__(self) -> str:
        """Only what identifies it: env, volumes and credentials may hold secrets."""
        return f"WorkloadPlan(id={self.id!r}, runtime={self.runtime!r}, image={self.image!r})"
