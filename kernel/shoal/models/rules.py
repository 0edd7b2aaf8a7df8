"""Rules of the schema of a create request that a type cannot say (docs/wire/api.md section 6): 422.

The rules beyond the schema (400) are those of `shoal.models.create` and `shoal.models.labels`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from shoal.errors import FieldProblem
from shoal.models.opensandbox import LIFECYCLE_VARIABLE, POOL_EXTENSION
from shoal.models.requests import CreateSandbox, LifecycleHooks, Volume
from shoal.models.sidecars import sidecar_problems

MAX_ITEMS = 10_000
"""In each list and map of a request; more would only keep the server busy."""

_BACKENDS = ("host", "pvc", "ossfs")


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
    for name, field in zip(request.__struct_fields__, request.__struct_encode_fields__, strict=True):
        yield from crowded(field, getattr(request, name))
    if request.network_policy is not None:
        yield from crowded("networkPolicy", request.network_policy.egress, "egress")


def crowded(field: str, value: object, *rest: str) -> Iterator[FieldProblem]:
    """The problem of a list or map with more than `MAX_ITEMS` items."""
    if isinstance(value, list | dict) and len(value) > MAX_ITEMS:
        most: dict[str, str | int | float] = {"max_length": MAX_ITEMS}
        yield FieldProblem(
            type="too_long", loc=["body", field, *rest], msg=f"expected at most {MAX_ITEMS} items", ctx=most
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
