"""Admission: from a create request to a durable intent, or to a clear refusal with nothing done."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Sequence
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from shoal.errors import InvalidRequest
from shoal.lifecycle.hosts import Host
from shoal.lifecycle.ledger import utcnow
from shoal.models import codes
from shoal.models.create import SandboxSpec
from shoal.models.opensandbox import EGRESS_PREFIX, RENEW_EXTENSION
from shoal.models.plan import NetworkPlan, Sidecar, WorkloadPlan
from shoal.models.requests import CreateSandbox, SidecarSpec, Volume
from shoal.models.sandbox import ACCEPTED, SandboxRecord, State
from shoal.models.secret import encode_hook
from shoal.plugin.interfaces import (
    AGENT_TOKEN_LABEL,
    Capabilities,
    Principal,
    Renewal,
    Runtime,
    SnapshotRecord,
)

DEFAULT_ENTRYPOINT = ["tail", "-f", "/dev/null"]
"""Of a snapshot restore that names none (docs/wire/api.md section 6)."""

POOLED_IMAGE = "unknown"
"""Of a sandbox from an engine's own pool: its image is the pool's (docs/wire/kubernetes.md section 6)."""

ACCESS_PREFIX = "access."
"""Of the extensions that speak to renewal plugins. Any other that nobody knows is kept and ignored, as the API has
it (docs/wire/api.md section 6)."""

AGENT_TOKEN_BYTES = 24

_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=encode_hook)


def fingerprint(request: CreateSandbox) -> str:
    """SHA-256 of the request's meaning: field order, spelling and whitespace do not count."""
    return hashlib.sha256(_canonical.encode(request)).hexdigest()


def refuse_unsupported(spec: SandboxSpec, host: Host) -> None:
    """Raise InvalidRequest for the first field that the runtime does not declare a capability for.

    The API wants 400 here (docs/wire/api.md section 6); operations that are lacking are 501 instead.
    """
    can, name = host.runtime.capabilities, host.runtime.name
    if spec.pool and not (can.pools or can.pause):
        raise InvalidRequest(codes.UNSUPPORTED_POOL_REF, f"The {name} runtime has no pools.")
    lacking = [
        ("templateId", spec.template_id is not None and spec.template_id.strip() != ""),
        ("lifecycle", spec.lifecycle is not None and not can.lifecycle_hooks),
        ("secureAccess", spec.secure_access and not can.secure_access),
        ("networkPolicy", spec.network_policy is not None and not can.network_policy),
        ("credentialProxy", spec.credential_proxy and not can.network_policy),
        ("sidecars", bool(spec.sidecars) and not can.sidecars),
        ("image.auth", spec.image is not None and spec.image.auth is not None and not can.image_auth),
        *(
            (f"sidecars[{i}].image.auth", sidecar.image.auth is not None and not can.image_auth)
            for i, sidecar in enumerate(spec.sidecars)
        ),
        *((f"volumes[{i}].{kind}", kind not in can.volumes) for i, kind in _volume_kinds(spec.volumes)),
    ]
    for field, unsupported in lacking:
        if unsupported:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"{field} is not supported by the {name} runtime.")
    _refuse_platform(spec, can, name)


def _refuse_platform(spec: SandboxSpec, can: Capabilities, name: str) -> None:
    if spec.platform is None:
        return
    platform = spec.platform
    if f"{platform.os}/{platform.arch}" not in can.platforms:
        offered = ", ".join(sorted(can.platforms)) or "none"
        raise InvalidRequest(
            codes.INVALID_PARAMETER,
            f"platform {platform.os}/{platform.arch} is not offered by the {name} runtime; offered: {offered}.",
        )


def _volume_kinds(volumes: Sequence[Volume]) -> list[tuple[int, str]]:
    return [
        (index, kind)
        for index, volume in enumerate(volumes)
        for kind in ("host", "pvc", "ossfs")
        if getattr(volume, kind) is not None
    ]


def draw_up(spec: SandboxSpec, host: Host, snapshot: SnapshotRecord | None) -> WorkloadPlan:
    """The runtime-neutral plan of a create."""
    now = utcnow()
    restored = snapshot is not None
    plan = WorkloadPlan(
        id=str(uuid.uuid4()),
        runtime=host.runtime.name,
        created_at=now,
        command=spec.entrypoint or list(DEFAULT_ENTRYPOINT),
        expires_at=None if spec.timeout is None else now + timedelta(seconds=spec.timeout),
        image=None if restored or spec.image is None else spec.image.uri,
        image_auth=None if spec.image is None else spec.image.auth,
        snapshot_id=snapshot.id if snapshot else None,
        snapshot_image=snapshot.image if snapshot else None,
        env=_environment(spec),
        resource_limits=spec.resource_limits,
        resource_requests=spec.resource_requests,
        platform=spec.platform,
        volumes=spec.volumes,
        network=NetworkPlan(policy=spec.network_policy),
        sidecars=[_sidecar(sidecar) for sidecar in spec.sidecars],
        lifecycle=spec.lifecycle,
        credential_proxy=spec.credential_proxy,
        secure_access=spec.secure_access,
        metadata=spec.metadata,
        extensions=spec.extensions,
        labels=_agent_token(host.runtime),
    )
    return _without_shape(plan) if host.runtime.pools is not None and spec.pool else plan


def _agent_token(runtime: Runtime) -> dict[str, str]:
    """A token for the agent that the runtime puts into the sandbox, if it takes one."""
    if runtime.agent is None or not runtime.agent.takes_token:
        return {}
    return {AGENT_TOKEN_LABEL: secrets.token_urlsafe(AGENT_TOKEN_BYTES)}


def _without_shape(plan: WorkloadPlan) -> WorkloadPlan:
    """What an engine's own pool decides by itself is not the request's (docs/wire/kubernetes.md section 6)."""
    return replace(plan, image=POOLED_IMAGE, image_auth=None, resource_limits={}, resource_requests={})


def _environment(spec: SandboxSpec) -> dict[str, str | None]:
    """The sandbox's own; what it says to a policy's sidecar counts only where a policy brings one
    (docs/wire/docker.md section 8).

    Left in, it would make the bootstrap wait for a certificate that nobody makes.
    """
    if spec.network_policy is not None:
        return spec.env
    return {name: value for name, value in spec.env.items() if not name.startswith(EGRESS_PREFIX)}


def _sidecar(sidecar: SidecarSpec) -> Sidecar:
    return Sidecar(
        name=sidecar.name,
        image=sidecar.image.uri,
        image_auth=sidecar.image.auth,
        command=sidecar.command,
        env=sidecar.env or {},
        ports=sidecar.ports or [],
        resource_limits=sidecar.resource_limits or {},
    )


def check_access(plan: WorkloadPlan, host: Host, renewals: Sequence[Renewal]) -> None:
    """Raise InvalidRequest for extensions that no enabled renewal plugin answers for, or that one refuses."""
    known = frozenset({RENEW_EXTENSION}).union(*(renewal.extensions for renewal in renewals))
    for key in plan.extensions:
        if key.startswith(ACCESS_PREFIX) and key not in known:
            names = ", ".join(sorted(known))
            message = f"extensions: no enabled plugin answers for {key[:64]!r}; known: {names}."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
    for renewal in renewals:
        renewal.check(plan, host.runtime.capabilities)


def first_record(plan: WorkloadPlan, principal: Principal | None) -> SandboxRecord:
    """The record that stands for the accepted intent."""
    return SandboxRecord(
        id=plan.id,
        runtime=plan.runtime,
        state=State.PENDING,
        since=plan.created_at,
        created_at=plan.created_at,
        entrypoint=plan.command,
        reason=ACCEPTED,
        message=" ".join(["Waiting to be provisioned.", *plan.warnings]),
        expires_at=plan.expires_at,
        image=plan.image,
        snapshot_id=plan.snapshot_id,
        platform=plan.platform,
        metadata=plan.metadata,
        extensions=plan.extensions,
        owner=principal.name if principal else None,
    )
