"""The shape of a pool's members: what a template means, and which creates it fits.

A template is a JSON object with those fields of a create request that decide what the sandbox is. A pod
template is understood as far as it says no more than they do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from shoal.errors import FieldProblem, InvalidRequest, ValidationFailed
from shoal.lifecycle.admission import ACCESS_PREFIX
from shoal.lifecycle.hosts import RUNTIME_EXTENSION
from shoal.models import codes
from shoal.models.create import SandboxSpec, parse_create
from shoal.models.opensandbox import ECHOED_EXTENSION_PREFIX, POOL_EXTENSION
from shoal.models.requests import CreateSandbox
from shoal.models.rules import normalize_create, schema_problems
from shoal.models.secret import decode_hook, encode_hook

T = TypeVar("T")

MATCH_EXTENSION = "poolMatch"
"""``extensions["poolMatch"]`` of a create: ``off`` keeps it from being served by a pool that it does not name."""

SDK_ENTRYPOINT: Final = ["tail", "-f", "/dev/null"]
SDK_LIMITS: Final = {"cpu": "1", "memory": "2Gi"}
"""What every SDK sends with each create whose caller said nothing of it; with ``poolRef`` that is nothing said."""

_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(CreateSandbox)) - {
    "templateId",
    "timeout",
    "metadata",
}
_canonical = msgspec.json.Encoder(order="deterministic", enc_hook=encode_hook)


class Shape(Struct, frozen=True):
    """A template, understood.

    Attributes:
        spec: the create of one member: no metadata, no timeout.
        fingerprint: the same for two templates, or a template and a request, that make the same thing.
    """

    spec: SandboxSpec
    fingerprint: str

    def __repr__(self) -> str:
        return f"Shape({self.fingerprint[:12]})"


def understand(template: Mapping[str, Any]) -> Shape:
    """The shape that a template describes. Raises InvalidRequest, ValidationFailed; no value is repeated."""
    fields = dict(template)
    if isinstance(fields.get("spec"), dict):
        fields = _of_pod(fields)
    unknown = sorted(set(fields) - _FIELDS)
    if unknown:
        known = ", ".join(sorted(_FIELDS))
        raise _unfit(f"{unknown[0][:64]!r} is no part of a sandbox's shape; known: {known}")
    request = _converted(fields, CreateSandbox)
    if request.resource_limits is None:
        request = replace(request, resource_limits={})
    problems = schema_problems(request)
    if problems:
        raise ValidationFailed([_inside(problem) for problem in problems])
    request = normalize_create(request)
    for key in request.extensions or {}:
        if not _shapes(key):
            raise _unfit(f"extensions: {key[:64]!r} belongs to a create, not to a pool")
    spec = parse_create(request)
    return Shape(spec, fingerprint(spec))


def fingerprint(spec: SandboxSpec) -> str:
    """SHA-256 of what a create asks for, leaving out what a member can be given when it is taken."""
    shaping = {key: value for key, value in spec.extensions.items() if _shapes(key)}
    shaping.pop(RUNTIME_EXTENSION, None)  # a pool is looked for on one runtime
    plain = replace(
        spec,
        image=None if spec.image is None else replace(spec.image, auth=None),
        timeout=None,
        metadata={},
        extensions=shaping,
    )
    return hashlib.sha256(_canonical.encode(plain)).hexdigest()


def misfit(spec: SandboxSpec, shape: Shape) -> str | None:
    """The first field in which a create that names the pool wants something else than it holds; None if it fits.

    What the create leaves out, leaves empty, or has from its SDK is as the pool has it. Its environment may differ: see
    `carries`.
    """
    wanted, given = _comparable(_without_defaults(spec)), _comparable(shape.spec)
    for field, value in wanted.items():
        if value and value != given[field]:
            return field
    for key, value in spec.extensions.items():
        if _shapes(key) and key != RUNTIME_EXTENSION and shape.spec.extensions.get(key) != value:
            return f"extensions.{key[:64]}"
    return None


def carries(shape: Shape, spec: SandboxSpec) -> bool:
    """Whether a member that was started ahead has all of the environment that a create asks for."""
    return spec.env.items() <= shape.spec.env.items()


def apply_shape(shape: Shape, spec: SandboxSpec) -> SandboxSpec:
    """A create for the same thing, with what the caller said of its life, and its environment over the shape's."""
    return replace(
        shape.spec,
        timeout=spec.timeout,
        metadata=spec.metadata,
        env={**shape.spec.env, **spec.env},
        extensions={**shape.spec.extensions, **spec.extensions},
    )


def _without_defaults(spec: SandboxSpec) -> SandboxSpec:
    """The create without what its SDK added by itself."""
    return replace(
        spec,
        entrypoint=None if spec.entrypoint == SDK_ENTRYPOINT else spec.entrypoint,
        resource_limits={} if spec.resource_limits == SDK_LIMITS else spec.resource_limits,
    )


def _comparable(spec: SandboxSpec) -> dict[str, Any]:
    return {
        "image": None if spec.image is None else spec.image.uri,
        "entrypoint": spec.entrypoint,
        "resourceLimits": spec.resource_limits,
        "resourceRequests": spec.resource_requests,
        "platform": spec.platform,
        "volumes": spec.volumes,
        "sidecars": spec.sidecars,
        "networkPolicy": spec.network_policy,
        "credentialProxy": spec.credential_proxy,
        "secureAccess": spec.secure_access,
    }


def _shapes(extension: str) -> bool:
    """Whether an extension may change what is made, rather than what becomes of it later."""
    return extension not in (POOL_EXTENSION, MATCH_EXTENSION) and not extension.startswith(
        (ACCESS_PREFIX, ECHOED_EXTENSION_PREFIX)
    )


# --- Pod templates ---------------------------------------------------------------------------------------------------


class _Variable(Struct, forbid_unknown_fields=True):
    name: str
    value: str = ""


class _Resources(Struct, frozen=True, forbid_unknown_fields=True):
    limits: dict[str, str | int | float] = {}
    requests: dict[str, str | int | float] = {}


class _Container(Struct, rename="camel", forbid_unknown_fields=True):
    image: str
    name: str = ""
    image_pull_policy: str = ""
    command: list[str] = []
    args: list[str] = []
    env: list[_Variable] = []
    resources: _Resources = _Resources()


class _PodSpec(Struct, rename="camel", forbid_unknown_fields=True):
    containers: Annotated[list[_Container], Meta(min_length=1, max_length=1)]
    restart_policy: str = ""


class _PodTemplate(Struct, forbid_unknown_fields=True):
    """As much of a pod template as a create can say; labels and annotations are of no use here."""

    spec: _PodSpec
    metadata: dict[str, Any] = {}


def _of_pod(template: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields out of a pod template with one container that needs nothing else."""
    [container] = _converted(template, _PodTemplate).spec.containers
    resources = container.resources
    return {
        "image": {"uri": container.image},
        "entrypoint": [*container.command, *container.args] or None,
        "env": {variable.name: variable.value for variable in container.env},
        "resourceLimits": {name: str(amount) for name, amount in resources.limits.items()},
        "resourceRequests": {name: str(amount) for name, amount in resources.requests.items()},
    }


def _converted(value: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        said, _, where = str(error).partition(" - at `$")
        unknown = re.search(r"unknown field `(.{1,64}?)`", said)  # of a name, never a value
        place = ".".join(filter(None, [where.rstrip("`").lstrip("."), unknown[1] if unknown else None]))
        raise _unfit(f"{place or 'it'} is not of a form that can be realised here") from None


def _unfit(why: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, f"template: {why}.")


def _inside(problem: FieldProblem) -> FieldProblem:
    return FieldProblem(type=problem.type, loc=["body", "template", *problem.loc[1:]], msg=problem.msg, ctx=problem.ctx)
