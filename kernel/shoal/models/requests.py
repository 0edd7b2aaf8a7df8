"""Bodies that clients send (docs/wire/api.md section 6), as msgspec Structs.

Wire names are camelCase; `shoal.http.parse` also accepts the snake_case spelling, lenient numbers and booleans, and
reports every failure at once. A constraint that a type can say stands in the type; the cross-field ones stand in
`shoal.models.rules`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from shoal.models.frozen import EMPTY_LIST, freeze_fields
from shoal.models.secret import Secret

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
STORAGE_QUANTITY = r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti|Pi|Ei)?$"

NonEmpty = Annotated[str, Meta(min_length=1)]
Command = Annotated[list[str], Meta(min_length=1)]


class Wire(Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of every wire type: camelCase names, nulls and defaults omitted."""


class FrozenWire(Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """Base of those that become a part of a plan or a record, which are immutable through and through."""

    def __post_init__(self) -> None:
        """Freeze dicts and lists."""
        freeze_fields(self)


class ImageAuth(FrozenWire, frozen=True):
    """Registry credentials, for this create only: kept until the image is there, never answered."""

    username: str
    password: Secret


class ImageSpec(Wire):
    """``uri`` is whatever the runtime understands as an image name; blank counts as no image."""

    uri: str
    auth: ImageAuth | None = None


class PlatformSpec(FrozenWire, frozen=True):
    """Checked by `shoal.models.create.normalize_platform`: linux or windows, amd64 or arm64."""

    os: str
    arch: str


class NetworkRule(FrozenWire, frozen=True):
    """``action`` is for whoever keeps the policy to say; ``target`` a domain, address or range."""

    action: str
    target: NonEmpty


class NetworkPolicy(FrozenWire, frozen=True):
    """Rules in order; ``default_action`` absent means deny, so that an empty policy denies everything."""

    default_action: str | None = None
    egress: list[NetworkRule] = EMPTY_LIST


class CredentialProxy(Wire):
    enabled: bool = False


class SidecarSpec(Wire, forbid_unknown_fields=True):
    """A container beside the sandbox that shares its network, and lives and dies with it. An addition of shoal.

    Attributes:
        name: a DNS label, unique within the request.
        command: replaces the image's entrypoint; absent keeps it.
        ports: what it listens on, for look-ups from outside; no two sidecars have the same.
    """

    name: Annotated[str, Meta(pattern=DNS_LABEL, max_length=63)]
    image: ImageSpec
    command: Command | None = None
    env: dict[str, str] | None = None
    ports: list[Annotated[int, Meta(ge=1, le=65535)]] | None = None
    resource_limits: dict[str, str] | None = None


class HostVolume(FrozenWire, frozen=True):
    path: Annotated[str, Meta(pattern=r"^(/|[A-Za-z]:[\\/])")]


class ClaimVolume(FrozenWire, frozen=True):
    """A named volume, as the runtime understands it: a claim of a cluster, a volume of an engine."""

    claim_name: Annotated[str, Meta(pattern=DNS_LABEL, max_length=253)]
    create_if_not_exists: bool = True
    delete_on_sandbox_termination: bool = False
    storage_class: str | None = None
    storage: Annotated[str, Meta(pattern=STORAGE_QUANTITY)] | None = None
    access_modes: list[str] | None = None


class OssVolume(FrozenWire, frozen=True):
    """An object-storage bucket mounted by ossfs."""

    bucket: Annotated[str, Meta(min_length=3, max_length=63)]
    endpoint: NonEmpty
    version: Literal["1.0", "2.0"] = "2.0"
    options: list[str] | None = None
    access_key_id: NonEmpty | None = None
    access_key_secret: Secret | None = None


class Volume(FrozenWire, frozen=True):
    """Exactly one of the three backends; ``sub_path`` stays inside it."""

    name: Annotated[str, Meta(pattern=DNS_LABEL, max_length=63)]
    mount_path: Annotated[str, Meta(pattern=r"^/.*")]
    read_only: bool = False
    sub_path: str | None = None
    host: HostVolume | None = None
    pvc: ClaimVolume | None = None
    ossfs: OssVolume | None = None


class LifecycleHook(FrozenWire, forbid_unknown_fields=True, frozen=True):
    """A command that runs before the sandbox's own; ``timeout_seconds`` 1..10800."""

    command: Command
    timeout_seconds: Annotated[int, Meta(ge=1, le=10800)] | None = None


class PeriodicHook(FrozenWire, forbid_unknown_fields=True, frozen=True):
    """A command on a schedule; ``timeout_seconds`` 1..300; names are unique within a request."""

    name: NonEmpty
    schedule: NonEmpty
    command: Command
    timeout_seconds: Annotated[int, Meta(ge=1, le=300)] | None = None


class LifecycleHooks(FrozenWire, forbid_unknown_fields=True, frozen=True):
    pre_start: LifecycleHook | None = None
    periodic: list[PeriodicHook] | None = None


class CreateSandbox(Wire):
    """POST /sandboxes. ``timeout`` is in seconds from acceptance; None means manual clean-up."""

    image: ImageSpec | None = None
    snapshot_id: str | None = None
    template_id: NonEmpty | None = None
    timeout: Annotated[int, Meta(ge=60)] | None = None
    resource_limits: dict[str, str] | None = None
    resource_requests: dict[str, str] | None = None
    env: dict[str, str | None] | None = None
    metadata: dict[str, str] | None = None
    entrypoint: Command | None = None
    platform: PlatformSpec | None = None
    network_policy: NetworkPolicy | None = None
    credential_proxy: CredentialProxy | None = None
    secure_access: bool = False
    volumes: list[Volume] | None = None
    sidecars: list[SidecarSpec] | None = None
    lifecycle: LifecycleHooks | None = None
    extensions: dict[str, str] | None = None


class RenewExpiration(Wire):
    """POST /sandboxes/{id}/renew-expiration; a time without a zone is UTC."""

    expires_at: datetime


class CreateSnapshot(Wire):
    name: NonEmpty | None = None


MetadataPatch = dict[str, str | None]
"""PATCH /sandboxes/{id}/metadata: JSON Merge Patch (RFC 7396) over a flat map; null deletes."""
