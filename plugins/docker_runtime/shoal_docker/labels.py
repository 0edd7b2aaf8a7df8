"""Names and labels on the engine (docs/wire/docker.md sections 2 and 3): written for ours, read with distrust.

The engine merges an image's labels into a container's, so what a container bears is not always what a server wrote.
Every reserved label that an image carries is blanked at create, and a blank one counts as absent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from shoal.models.opensandbox import RENEW_EXTENSION
from shoal.models.plan import WorkloadPlan
from shoal.models.sandbox import echoed_extensions

PREFIX: Final = "opensandbox.io/"
ID: Final = PREFIX + "id"
EXPIRES_AT: Final = PREFIX + "expires-at"
MANUAL: Final = PREFIX + "manual-cleanup"
PLATFORM_OS: Final = PREFIX + "platform-os"
PLATFORM_ARCH: Final = PREFIX + "platform-arch"
SNAPSHOT_ID: Final = PREFIX + "snapshot-id"
RENEW_SECONDS: Final = PREFIX + "access-renew-extend-seconds"
EXTENSIONS: Final = PREFIX + "extensions."
PROXY_PORT: Final = PREFIX + "embedding-proxy-port"
HTTP_PORT: Final = PREFIX + "http-port"
EGRESS_TOKEN: Final = PREFIX + "egress-auth-token"
MANAGED_VOLUMES: Final = PREFIX + "volume-managed-by"

SIDECAR_FOR: Final = PREFIX + "sidecar-for"
"""On every sidecar of ours: the sandbox's id. Those of opensandbox-server have only the next."""
EGRESS_SIDECAR_FOR: Final = PREFIX + "egress-sidecar-for"
SIDECAR_NAME: Final = PREFIX + "sidecar-name"
SIDECAR_FIRST: Final = PREFIX + "sidecar-first"
SIDECARS: Final = PREFIX + "sidecars"
"""On the sandbox's container: JSON list of the names of its sidecars, so that a missing one is missed."""
IMAGE: Final = PREFIX + "image"
"""The image as the caller wrote it; the engine's own word may be a digest or a prepared image."""
PLUGIN_LABELS: Final = PREFIX + "plugin-labels"
"""JSON list of the keys in `WorkloadPlan.labels` that are not below the reserved prefix."""
EXECD_VOLUME: Final = PREFIX + "execd-volume"
"""On a volume: that it is one of execd's. On a container: the one whose files it has."""
OWN: Final = PREFIX + "server"
"""``shoal``: this container was made by this plugin, whatever its image says."""

FOREIGN: Final = (PREFIX, "org.opencontainers.image.", "com.docker.", "desktop.docker.")
"""Prefixes of labels that are nobody's metadata."""
_ECHOED: Final = "opensandbox.extensions."


def sandbox_name(sandbox_id: str) -> str:
    """The name of a sandbox's own container."""
    return f"sandbox-{sandbox_id}"


def sidecar_name(sandbox_id: str, name: str) -> str:
    """The name of a sidecar's container."""
    return f"sandbox-{name}-{sandbox_id}"


def runtime_volume(sandbox_id: str) -> str:
    """The volume at ``/opt/opensandbox`` that a sandbox shares with a sidecar."""
    return f"opensandbox-runtime-{sandbox_id}"


def of_sandbox(plan: WorkloadPlan) -> dict[str, str]:
    """Everything that the plan itself says on the sandbox's container; ports and volumes add their own."""
    labels = {**plan.metadata, **plan.labels, ID: plan.id, OWN: "shoal"}
    labels |= {MANUAL: "true"} if plan.expires_at is None else {EXPIRES_AT: plan.expires_at.isoformat()}
    if plan.platform is not None:
        labels |= {PLATFORM_OS: plan.platform.os, PLATFORM_ARCH: plan.platform.arch}
    if plan.snapshot_id is not None:
        labels[SNAPSHOT_ID] = plan.snapshot_id
    elif plan.image is not None:
        labels[IMAGE] = plan.image
    if RENEW_EXTENSION in plan.extensions:
        labels[RENEW_SECONDS] = plan.extensions[RENEW_EXTENSION].strip()
    for key, value in echoed_extensions(plan.extensions).items():
        labels[EXTENSIONS + key.removeprefix(_ECHOED)] = value
    if plan.sidecars:
        labels[SIDECARS] = json.dumps([sidecar.name for sidecar in plan.sidecars], separators=(",", ":"))
    unreserved = [key for key in plan.labels if not key.startswith(PREFIX)]
    if unreserved:
        labels[PLUGIN_LABELS] = json.dumps(unreserved, separators=(",", ":"))
    return labels


def of_sidecar(sandbox_id: str, name: str, labels: Mapping[str, str], *, first: bool) -> dict[str, str]:
    """The labels of a sidecar's container."""
    own = {SIDECAR_FOR: sandbox_id, SIDECAR_NAME: name, OWN: "shoal", f"{PREFIX}{name}-sidecar-for": sandbox_id}
    return {**labels, **own, **({SIDECAR_FIRST: "true"} if first else {})}


def blanked(carried: Iterable[str], labels: Mapping[str, str]) -> dict[str, str]:
    """``labels``, and every other reserved key that an image carries set to nothing."""
    return {**{key: "" for key in carried if key.startswith(PREFIX)}, **labels}


def reserved(labels: Mapping[str, str]) -> dict[str, str]:
    """What plugins find in `Workload.labels`: every reserved label that says something, and what they had added."""
    own = json_list(labels.get(PLUGIN_LABELS, ""))
    return {key: value for key, value in labels.items() if value and (key.startswith(PREFIX) or key in own)}


def metadata(labels: Mapping[str, str], carried: Mapping[str, str]) -> dict[str, str]:
    """The caller's own: neither reserved nor an image tool's, nor a plugin's, nor what the image itself carries."""
    plugins = json_list(labels.get(PLUGIN_LABELS, ""))
    return {
        key: value
        for key, value in labels.items()
        if not key.startswith(FOREIGN) and key not in plugins and carried.get(key) != value
    }


def extensions(labels: Mapping[str, str]) -> dict[str, str]:
    """The extensions that labels preserve."""
    found = {
        _ECHOED + key.removeprefix(EXTENSIONS): value
        for key, value in labels.items()
        if key.startswith(EXTENSIONS) and value
    }
    seconds = labels.get(RENEW_SECONDS, "")
    if seconds.isdecimal() and 300 <= int(seconds) <= 86400:
        found[RENEW_EXTENSION] = seconds
    return found


def port(labels: Mapping[str, str], key: str) -> int | None:
    """A port label; None where it is absent or no port."""
    text = labels.get(key, "")
    number = int(text) if text.isdecimal() and len(text) <= 5 else 0
    return number if 1 <= number <= 65535 else None


def moment(text: str) -> datetime | None:
    """A time with a zone; None for anything else. Never "now": a time that cannot be read must end nothing."""
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return when if when.tzinfo is not None else None


def json_list(text: str) -> list[str]:
    """A label that holds a JSON list of strings; empty for anything else."""
    try:
        found: Any = json.loads(text) if text else []
    except ValueError:
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []
