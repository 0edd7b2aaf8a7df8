"""A create as the lifecycle uses it: parsed once, from a request whose schema `shoal.models.rules` has checked."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.entrypoint import words
from shoal.models.frozen import EMPTY_DICT, EMPTY_LIST, Frozen
from shoal.models.labels import check_label, shown
from shoal.models.opensandbox import AGENT_FOLDER, EGRESS_PREFIX, EGRESS_VARIABLES, POOL_EXTENSION, RENEW_EXTENSION
from shoal.models.requests import (
    CreateSandbox,
    ImageSpec,
    LifecycleHooks,
    NetworkPolicy,
    PlatformSpec,
    SidecarSpec,
    Volume,
)
from shoal.models.sidecars import check_sidecars

_RENEW_SECONDS = range(300, 86401)
_PLATFORMS = {"os": ("linux", "windows"), "arch": ("amd64", "arm64")}


class SandboxSpec(Frozen, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """A valid create. What is absent and what is empty are one; image names and the platform are normalized.

    Attributes:
        timeout: seconds from acceptance; None means no expiry.
        entrypoint: None means that the request has none.
    """

    image: ImageSpec | None = None
    snapshot_id: str | None = None
    template_id: str | None = None
    timeout: int | None = None
    resource_limits: dict[str, str] = EMPTY_DICT
    resource_requests: dict[str, str] = EMPTY_DICT
    env: dict[str, str | None] = EMPTY_DICT
    metadata: dict[str, str] = EMPTY_DICT
    entrypoint: list[str] | None = None
    platform: PlatformSpec | None = None
    network_policy: NetworkPolicy | None = None
    credential_proxy: bool = False
    secure_access: bool = False
    volumes: list[Volume] = EMPTY_LIST
    sidecars: list[SidecarSpec] = EMPTY_LIST
    lifecycle: LifecycleHooks | None = None
    extensions: dict[str, str] = EMPTY_DICT

    @property
    def pool(self) -> str:
        """The name of the pool to take a sandbox from, ``*`` for any that fits; empty if the create names none."""
        return self.extensions.get(POOL_EXTENSION, "").strip()

    def __repr__(self) -> str:
        """Only what identifies it: env, volumes and credentials may hold secrets."""
        return f"SandboxSpec(image={self.image and self.image.uri!r}, snapshot_id={self.snapshot_id!r})"


def parse_create(request: CreateSandbox, *, longest_timeout: int | None = None) -> SandboxSpec:
    """The request as the lifecycle uses it.

    ``longest_timeout`` bounds ``timeout``, in seconds; None leaves it unbounded. Raises InvalidRequest for the first
    broken rule that holds for every runtime, in the API's order.
    """
    spec = _parse(request)
    _check_renewal(spec.extensions)
    for key, value in spec.metadata.items():
        check_label(key, value)
    if spec.platform is not None:
        spec = replace(spec, platform=normalize_platform(spec.platform))
    _check_timeout(spec.timeout, longest_timeout)
    for name in spec.env:
        if name.startswith(EGRESS_PREFIX) and name not in EGRESS_VARIABLES:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"env: {shown(name)} cannot be set by a request.")
    if spec.entrypoint is not None:
        words(spec.entrypoint)
    _check_volumes(spec.volumes)
    check_sidecars(spec.sidecars)
    return spec


def _parse(request: CreateSandbox) -> SandboxSpec:
    return SandboxSpec(
        image=None if request.image is None else _trimmed(request.image),
        snapshot_id=request.snapshot_id,
        template_id=request.template_id,
        timeout=request.timeout,
        resource_limits=request.resource_limits or {},
        resource_requests=request.resource_requests or {},
        env=request.env or {},
        metadata=request.metadata or {},
        entrypoint=request.entrypoint,
        platform=request.platform,
        network_policy=request.network_policy,
        credential_proxy=request.credential_proxy is not None and request.credential_proxy.enabled,
        secure_access=request.secure_access,
        volumes=request.volumes or [],
        sidecars=[replace(sidecar, image=_trimmed(sidecar.image)) for sidecar in request.sidecars or []],
        lifecycle=request.lifecycle,
        extensions=request.extensions or {},
    )


def _trimmed(image: ImageSpec) -> ImageSpec:
    return replace(image, uri=image.uri.strip())


def normalize_platform(platform: PlatformSpec) -> PlatformSpec:
    """The platform trimmed and in lower case. Raises InvalidRequest for one that does not exist."""
    normal = PlatformSpec(os=platform.os.strip().lower(), arch=platform.arch.strip().lower())
    for field, known in _PLATFORMS.items():
        if getattr(normal, field) not in known:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"platform.{field} must be one of {', '.join(known)}.")
    return normal


def _check_renewal(extensions: Mapping[str, str]) -> None:
    """``access.renew.extend.seconds``; what Python reads as an integer counts, sign and underscores included."""
    text = extensions.get(RENEW_EXTENSION)
    if text is None:
        return
    try:
        seconds = int(text.strip())
    except ValueError:
        seconds = 0
    if seconds not in _RENEW_SECONDS:
        low, high = _RENEW_SECONDS[0], _RENEW_SECONDS[-1]
        message = f"extensions: {RENEW_EXTENSION} must be an integer between {low} and {high}."
        raise InvalidRequest(codes.INVALID_PARAMETER, message)


def _check_timeout(timeout: int | None, maximum: int | None) -> None:
    if timeout is None:
        return
    if maximum is not None and timeout > maximum:
        raise InvalidRequest(codes.INVALID_PARAMETER, f"timeout must be at most {maximum} seconds on this server.")
    try:
        datetime.now(UTC) + timedelta(seconds=timeout)
    except OverflowError:
        raise InvalidRequest(codes.INVALID_PARAMETER, "timeout reaches beyond the calendar.") from None


def _check_volumes(volumes: Sequence[Volume]) -> None:
    names: set[str] = set()
    for volume in volumes:
        if volume.name in names:
            raise InvalidRequest("VOLUME::DUPLICATE_NAME", f"volumes: the name {volume.name} is used twice.")
        names.add(volume.name)
        sub_path = volume.sub_path or ""
        if sub_path.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", sub_path):
            raise InvalidRequest(
                "VOLUME::INVALID_SUB_PATH", f"volumes: subPath of {volume.name} must be relative and without '..'."
            )
        if volume.host is not None and not _plain_path(volume.host.path):
            raise InvalidRequest(
                "VOLUME::INVALID_HOST_PATH",
                f"volumes: host.path of {volume.name} must have no '..', no double and no trailing separator.",
            )
    taken: set[str] = set()
    for volume in volumes:
        _check_target(volume, taken)


def _check_target(volume: Volume, taken: set[str]) -> None:
    target = posixpath.normpath("/" + volume.mount_path.lstrip("/"))
    if f"{target}/".startswith(AGENT_FOLDER + "/"):
        message = f"volumes: the mountPath of {volume.name} is where the server puts its own files ({AGENT_FOLDER})."
        raise InvalidRequest(codes.INVALID_PARAMETER, message)
    if target in taken:
        message = f"volumes: the mountPath of {volume.name} is that of another volume."
        raise InvalidRequest(codes.INVALID_PARAMETER, message)
    taken.add(target)


def _plain_path(path: str) -> bool:
    parts = re.split(r"[/\\]", path)
    return ".." not in parts and "" not in parts[1:]
