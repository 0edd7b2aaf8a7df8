"""Admission: from a create request to a durable intent, or to a clear refusal with nothing done."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import timedelta

import msgspec

from shoal.engine.hosts import Host
from shoal.engine.ledger import utcnow
from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import NetworkPlan, WorkloadPlan
from shoal.models.requests import CreateSandbox, Volume
from shoal.models.rules import RENEW_EXTENSION, normal_platform
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.secret import encode_hook
from shoal.plugin.interfaces import Capabilities, Networking, Principal, Renewal, SnapshotRecord

DEFAULT_ENTRYPOINT = ["tail", "-f", "/dev/null"]
"""Of a snapshot restore that names none (contract/api.md section 6)."""

ACCESS_PREFIX = "access."
"""Of the extensions that speak to renewal plugins. Any other that nobody knows is kept and ignored, as the contract has
it (contract/api.md section 6)."""

_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=encode_hook)


def fingerprint(request: CreateSandbox) -> str:
    """SHA-256 of the request's meaning: field order, spelling and whitespace do not count."""
    return hashlib.sha256(_canonical.encode(request)).hexdigest()


def refuse_unsupported(request: CreateSandbox, host: Host) -> None:
    """Raise InvalidRequest for the first field that the runtime does not declare a capability for.

    The contract wants 400 here (section 6, "Docker specifics"); operations that are lacking are 501 instead.
    """
    can, name = host.runtime.capabilities, host.runtime.name
    if (request.extensions or {}).get("poolRef", "").strip() and not (can.pools or can.pause):
        raise InvalidRequest(codes.UNSUPPORTED_POOL_REF, f"The {name} runtime has no pools.")
    lacking = [
        ("templateId", request.template_id is not None and request.template_id.strip() != ""),
        ("lifecycle", request.lifecycle is not None and not can.lifecycle_hooks),
        ("secureAccess", request.secure_access and not can.secure_access),
        ("networkPolicy", request.network_policy is not None and not can.network_policy),
        ("image.auth", request.image is not None and request.image.auth is not None and not can.image_auth),
        *((f"volumes[{i}].{kind}", kind not in can.volumes) for i, kind in _volume_kinds(request.volumes or [])),
    ]
    for field, unsupported in lacking:
        if unsupported:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"{field} is not supported by the {name} runtime.")
    _refuse_platform(request, can, name)


def _refuse_platform(request: CreateSandbox, can: Capabilities, name: str) -> None:
    if request.platform is None:
        return
    platform = normal_platform(request.platform)
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


def draw_up(request: CreateSandbox, host: Host, snapshot: SnapshotRecord | None) -> WorkloadPlan:
    """The runtime-neutral plan of a request that passed every rule."""
    now = utcnow()
    restored = snapshot is not None
    return WorkloadPlan(
        id=str(uuid.uuid4()),
        runtime=host.runtime.name,
        created_at=now,
        command=request.entrypoint or list(DEFAULT_ENTRYPOINT),
        expires_at=None if request.timeout is None else now + timedelta(seconds=request.timeout),
        image=None if restored or request.image is None else request.image.uri.strip(),
        image_auth=None if request.image is None else request.image.auth,
        snapshot_id=snapshot.id if snapshot else None,
        snapshot_image=snapshot.image if snapshot else None,
        env=request.env or {},
        resource_limits=request.resource_limits or {},
        resource_requests=request.resource_requests or {},
        platform=None if request.platform is None else normal_platform(request.platform),
        volumes=request.volumes or [],
        network=NetworkPlan(policy=request.network_policy),
        lifecycle=request.lifecycle,
        credential_proxy=request.credential_proxy is not None and request.credential_proxy.enabled,
        secure_access=request.secure_access,
        metadata=request.metadata or {},
        extensions=request.extensions or {},
    )


async def amend(plan: WorkloadPlan, networking: Sequence[Networking]) -> WorkloadPlan:
    """The plan after every networking plugin had its say."""
    for concern in networking:
        plan = await concern.amend(plan)
    return plan


def check_access(plan: WorkloadPlan, host: Host, renewals: Sequence[Renewal]) -> None:
    """Raise InvalidRequest for extensions that no enabled renewal plugin answers for, or that one refuses."""
    known = frozenset({RENEW_EXTENSION}).union(*(renewal.extensions for renewal in renewals))
    for key in plan.extensions:
        if key.startswith(ACCESS_PREFIX) and key not in known:
            told = ", ".join(sorted(known))
            message = f"extensions: no enabled plugin answers for {key[:64]!r}; known: {told}."
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
        reason="ACCEPTED",
        message="Waiting to be provisioned.",
        expires_at=plan.expires_at,
        image=plan.image,
        snapshot_id=plan.snapshot_id,
        platform=plan.platform,
        metadata=plan.metadata,
        extensions=plan.extensions,
        owner=principal.name if principal else None,
    )
