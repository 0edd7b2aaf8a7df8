"""Labels, annotations and names on the cluster (docs/wire/kubernetes.md sections 3 and 4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from shoal.models.opensandbox import ECHOED_EXTENSION_PREFIX, RENEW_EXTENSION

PREFIX: Final = "opensandbox.io/"
ID: Final = f"{PREFIX}id"
MANUAL: Final = f"{PREFIX}manual-cleanup"
SNAPSHOT: Final = f"{PREFIX}snapshot-id"
RENEW: Final = f"{PREFIX}access-renew-extend-seconds"
EXTENSIONS: Final = f"{PREFIX}extensions."
EXPIRES: Final = f"{PREFIX}expires-at"
"""Annotation of plain pods; the custom resources have a field of their own."""
ENTRYPOINT: Final = f"{PREFIX}entrypoint"
"""Annotation of plain pods: JSON array of the sandbox's own command."""
CREATED: Final = f"{PREFIX}created-at"
"""Annotation of plain pods: when the create was accepted."""
DELETED: Final = f"{PREFIX}deleted"
"""Annotation of what a server has deleted and a finalizer still holds."""


def labels(sandbox_id: str, metadata: dict[str, str], *, manual: bool, snapshot_id: str | None) -> dict[str, str]:
    """The labels of a sandbox's objects; the server's own win over metadata, which cannot hold their prefix anyway."""
    own = {ID: sandbox_id}
    if manual:
        own[MANUAL] = "true"
    if snapshot_id is not None:
        own[SNAPSHOT] = snapshot_id
    return {**metadata, **own}


def metadata_of(labels: dict[str, str]) -> dict[str, str]:
    """The caller's metadata among an object's labels."""
    return {key: value for key, value in labels.items() if key.partition("/")[0] != PREFIX.rstrip("/")}


def extension_annotations(extensions: dict[str, str]) -> dict[str, str]:
    """The extensions that the cluster holds: those that are echoed, and the renewal on access."""
    held = {
        f"{EXTENSIONS}{key.removeprefix(ECHOED_EXTENSION_PREFIX)}": value
        for key, value in extensions.items()
        if key.startswith(ECHOED_EXTENSION_PREFIX)
    }
    if RENEW_EXTENSION in extensions:
        held[RENEW] = extensions[RENEW_EXTENSION].strip()
    return held


def extensions_of(annotations: dict[str, str]) -> dict[str, str]:
    """The inverse of `extension_annotations`."""
    held = {
        f"{ECHOED_EXTENSION_PREFIX}{key.removeprefix(EXTENSIONS)}": value
        for key, value in annotations.items()
        if key.startswith(EXTENSIONS)
    }
    if RENEW in annotations:
        held[RENEW_EXTENSION] = annotations[RENEW]
    return held


def write_time(moment: datetime) -> str:
    """ISO 8601 in UTC with its offset, microseconds when non-zero (docs/wire/kubernetes.md section 5)."""
    return moment.astimezone(UTC).isoformat()


def expiry_told(message: str | None, said: str | None) -> str | None:
    """The status message, with a word on an expiry that cannot be read."""
    if not said or read_time(said) is not None:
        return message
    return f"{message or ''} Its expiry {said[:80]!r} cannot be read: nothing ends it until it is renewed.".strip()


def read_time(text: str | None) -> datetime | None:
    """The time, or None if there is none or it cannot be read; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
