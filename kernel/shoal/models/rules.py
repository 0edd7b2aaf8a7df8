"""Rules on a create request, a metadata patch or a platform that a type cannot say (docs/wire/api.md sections 6 and 7).

`schema_problems` finds what belongs to the schema (422); `check_create` and `check_metadata_patch` raise the rest
(400). Both are pure: they look at the request and nothing else, save for the clock where an expiry must be a date.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from msgspec.structs import fields, replace

from shoal.errors import FieldProblem, InvalidRequest
from shoal.models import codes
from shoal.models.entrypoint import words
from shoal.models.opensandbox import (
    AGENT_FOLDER,
    EGRESS_PREFIX,
    EGRESS_VARIABLES,
    LIFECYCLE_VARIABLE,
    POOL_EXTENSION,
    RENEW_EXTENSION,
    RESERVED_PREFIX,
)
from shoal.models.requests import CreateSandbox, ImageSpec, LifecycleHooks, MetadataPatch, PlatformSpec, Volume
from shoal.models.sidecars import check_sidecars, sidecar_problems

MOST_ITEMS = 10_000
"""In each list and map of a request; more would only keep the server busy."""

_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_RENEW_SECONDS = range(300, 86401)
_PLATFORMS = {"os": ("linux", "windows"), "arch": ("amd64", "arm64")}
_BACKENDS = ("host", "pvc", "ossfs")


# --- The schema, across fields: 422 ----------------------------------------------------------------------------------


def schema_problems(request: CreateSandbox) -> list[FieldProblem]:
    """What is wrong with a create request whose fields fit their types; empty if nothing is.

    Problems inside ``volumes``, ``sidecars``, ``lifecycle`` and ``env`` come first, then the cross-field rules in the
    API's order. The names of the fields are reported, never what they hold.
    """
    crowded = list(_crowded(request))
    return crowded or [
        *_volume_problems(request.volumes or []),
        *sidecar_problems(request.sidecars or []),
        *_lifecycle_problems(request.lifecycle),
        *_env_problems(request.env or {}),
        *_cross_field_problems(request),
    ]


def normalize_create(request: CreateSandbox) -> CreateSandbox:
    """The request with blank ids and a blank image as absent, and the names of periodic hooks trimmed."""
    lifecycle = request.lifecycle
    if lifecycle is not None and lifecycle.periodic is not None:
        hooks = [replace(hook, name=hook.name.strip(), schedule=hook.schedule.strip()) for hook in lifecycle.periodic]
        lifecycle = replace(lifecycle, periodic=hooks)
    return replace(
        request,
        image=None if _no_image(request) else request.image,
        snapshot_id=_text(request.snapshot_id),
        template_id=_text(request.template_id),
        lifecycle=lifecycle,
    )


def _crowded(request: CreateSandbox) -> Iterator[FieldProblem]:
    """Lists and maps that are too long to be looked at."""
    for field in fields(request):
        yield from crowded(field.encode_name, getattr(request, field.name))
    if request.network_policy is not None:
        yield from crowded("networkPolicy", request.network_policy.egress, "egress")


def crowded(field: str, value: object, *rest: str) -> Iterator[FieldProblem]:
    """The problem of a list or map with more than `MOST_ITEMS` items."""
    if isinstance(value, list | dict) and len(value) > MOST_ITEMS:
        most: dict[str, str | int | float] = {"max_length": MOST_ITEMS}
        yield FieldProblem(
            type="too_long", loc=["body", field, *rest], msg=f"expected at most {MOST_ITEMS} items", ctx=most
        )


def _cross_field_problems(request: CreateSandbox) -> Iterator[FieldProblem]:
    if _text(request.template_id) is not None:
        yield from _template_problems(request)
        return
    if _text((request.extensions or {}).get(POOL_EXTENSION)) is not None:
        if request.lifecycle is not None:
            yield _problem("lifecycle", "cannot be combined with extensions.poolRef")
        if _text(request.snapshot_id) is not None:
            yield _problem("snapshotId", "cannot be combined with extensions.poolRef")
        return
    if request.credential_proxy is not None and request.credential_proxy.enabled and request.network_policy is None:
        yield _problem("credentialProxy", "needs networkPolicy")
    no_image, no_snapshot = _no_image(request), _text(request.snapshot_id) is None
    if no_image == no_snapshot:
        yield _problem("image", "exactly one of image and snapshotId must be given")
    if not no_image and request.entrypoint is None:
        yield _problem("entrypoint", "is needed with an image")
    if request.resource_limits is None:
        yield _problem("resourceLimits", "is needed; it may be empty")


def _template_problems(request: CreateSandbox) -> Iterator[FieldProblem]:
    excluded = {
        "image": request.image,
        "snapshotId": request.snapshot_id,
        "entrypoint": request.entrypoint,
        "env": request.env,
        "resourceLimits": request.resource_limits,
        "resourceRequests": request.resource_requests,
        "volumes": request.volumes,
        "sidecars": request.sidecars,
        "platform": request.platform,
        "credentialProxy": request.credential_proxy,
        "secureAccess": request.secure_access or None,
        "lifecycle": request.lifecycle,
    }
    for name, value in excluded.items():
        if value is not None:
            yield _problem(name, "cannot be combined with templateId")
    if request.timeout is None:
        yield _problem("timeout", "is needed with templateId")


def _volume_problems(volumes: list[Volume]) -> Iterator[FieldProblem]:
    for index, volume in enumerate(volumes):
        backends = [name for name in _BACKENDS if getattr(volume, name) is not None]
        if len(backends) != 1:
            yield _problem("volumes", "exactly one of host, pvc and ossfs must be given", index)
        # `$` also matches before a final line break, so the patterns of the types let one through.
        if "\n" in volume.name:
            yield _problem("volumes", "must be a DNS label", index, "name")
        if volume.pvc is not None and "\n" in volume.pvc.claim_name:
            yield _problem("volumes", "must be a DNS label", index, "pvc", "claimName")
        if volume.ossfs is not None:
            if volume.ossfs.access_key_id is None:
                yield _problem("volumes", "is needed", index, "ossfs", "accessKeyId")
            if volume.ossfs.access_key_secret is None or not volume.ossfs.access_key_secret.reveal():
                yield _problem("volumes", "is needed and must not be empty", index, "ossfs", "accessKeySecret")


def _lifecycle_problems(lifecycle: LifecycleHooks | None) -> Iterator[FieldProblem]:
    if lifecycle is None:
        return
    if lifecycle.pre_start is not None and not lifecycle.pre_start.command[0].strip():
        yield _problem("lifecycle", "must not be blank", "preStart", "command", 0)
    names = set()
    for index, hook in enumerate(lifecycle.periodic or []):
        if not hook.command[0].strip():
            yield _problem("lifecycle", "must not be blank", "periodic", index, "command", 0)
        for field, value in (("name", hook.name), ("schedule", hook.schedule)):
            if not value.strip():
                yield _problem("lifecycle", "must not be blank", "periodic", index, field)
        if hook.name.strip() in names:
            yield _problem("lifecycle", "must be unique", "periodic", index, "name")
        names.add(hook.name.strip())


def _env_problems(env: Mapping[str, str | None]) -> Iterator[FieldProblem]:
    if LIFECYCLE_VARIABLE in env:
        yield _problem("env", "is set by the server; use lifecycle", LIFECYCLE_VARIABLE)


def _problem(field: str, msg: str, *rest: str | int) -> FieldProblem:
    return FieldProblem(type="value_error", loc=["body", field, *rest], msg=msg)


def _no_image(request: CreateSandbox) -> bool:
    return request.image is None or not request.image.uri.strip()


def _text(value: str | None) -> str | None:
    """A blank string counts as absent."""
    return (value or "").strip() or None


# --- Beyond the schema: 400 ------------------------------------------------------------------------------------------


def check_create(request: CreateSandbox, *, longest_timeout: int | None = None) -> CreateSandbox:
    """The request in the form that everything after it uses: platform in lower case, platform and images trimmed.

    ``longest_timeout`` bounds ``timeout``, in seconds; None leaves it unbounded. Raises InvalidRequest for the first
    broken rule that holds for every runtime, in the API's order.
    """
    _check_renewal(request.extensions or {})
    for key, value in (request.metadata or {}).items():
        _check_label(key, value)
    platform = None if request.platform is None else normalize_platform(request.platform)
    _check_timeout(request.timeout, longest_timeout)
    for name in request.env or {}:
        if name.startswith(EGRESS_PREFIX) and name not in EGRESS_VARIABLES:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"env: {_shown(name)} cannot be set by a request.")
    if request.entrypoint is not None:
        words(request.entrypoint)
    _check_volumes(request.volumes or [])
    check_sidecars(request.sidecars or [])
    image = None if request.image is None else _trimmed(request.image)
    sidecars = request.sidecars and [replace(each, image=_trimmed(each.image)) for each in request.sidecars]
    return replace(request, platform=platform, image=image, sidecars=sidecars)


def _trimmed(image: ImageSpec) -> ImageSpec:
    return replace(image, uri=image.uri.strip())


def check_metadata_patch(patch: MetadataPatch) -> None:
    """Raise InvalidRequest for a reserved key, even one to delete, then for an addition that is no label."""
    for key in patch:
        if key.startswith(RESERVED_PREFIX):
            raise InvalidRequest(codes.RESERVED_METADATA_LABEL, f"metadata: keys below {RESERVED_PREFIX} are reserved.")
    for key, value in patch.items():
        if value is not None:
            _check_label(key, value)


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


def _check_label(key: str, value: str) -> None:
    """A Kubernetes label: ``[prefix/]name`` and a short value (docs/wire/api.md section 7)."""
    if key.startswith(RESERVED_PREFIX):
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: keys below {RESERVED_PREFIX} are reserved.")
    prefix, slash, name = key.rpartition("/")
    if len(name) > 63 or _LABEL_NAME.fullmatch(name) is None:
        rule = "a name is 1 to 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the key {_shown(key)} is invalid: {rule}.")
    if slash and (len(prefix) > 253 or _DNS_SUBDOMAIN.fullmatch(prefix) is None):
        rule = "a prefix is a lower-case DNS subdomain of at most 253 characters"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the key {_shown(key)} is invalid: {rule}.")
    if value and (len(value) > 63 or _LABEL_NAME.fullmatch(value) is None):
        rule = "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
        raise InvalidRequest(codes.INVALID_METADATA_LABEL, f"metadata: the value of {_shown(key)} is invalid: {rule}.")


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


def _shown(text: str) -> str:
    """A caller's key, cut short for a message."""
    return repr(text if len(text) <= 64 else text[:61] + "...")
