"""Sandboxes that this server has no record of: made by opensandbox-server, or by a server whose store is lost.

A record is rebuilt from the container's labels and, where opensandbox-server kept something newer in loose files, from
those (docs/wire/docker.md section 10). An expiry that cannot be read ends nothing: such a sandbox is taken for one
without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from shoal.models.requests import PlatformSpec
from shoal.models.workload import Adoption
from shoal_docker import labels
from shoal_docker.observe import stamp

LOOSE_FILES: Final = Path("~/.opensandbox/metadata")
NO_EXPIRY: Final = "Its expiry cannot be read, so it is removed only when deleted."


class LooseFiles(Struct, frozen=True):
    """What opensandbox-server wrote about one sandbox beside the engine; None where it wrote nothing readable."""

    expires_at: datetime | None = None
    metadata: dict[str, str] | None = None


def adopt(
    inspected: Mapping[str, Any], carried: Mapping[str, str], uri: str | None, files: LooseFiles
) -> tuple[Adoption, str | None]:
    """The record's beginnings, and what its status should warn of.

    Args:
        inspected: the engine's description of the container.
        carried: the labels of its image, which are not the caller's.
        uri: the image's first tag, where the engine still has the image.
    """
    config = inspected.get("Config") or {}
    found: dict[str, str] = dict(config.get("Labels") or {})
    metadata = labels.metadata(found, carried) if files.metadata is None else files.metadata
    snapshot_id = found.get(labels.SNAPSHOT_ID) or None
    expires_at, warning = _expiry(found, files)
    image = None if snapshot_id else found.get(labels.IMAGE) or uri or str(config.get("Image") or "") or None
    adoption = Adoption(
        created_at=stamp(str(inspected.get("Created") or "")) or datetime.now(UTC),
        entrypoint=[str(word) for word in config.get("Cmd") or config.get("Entrypoint") or []],
        expires_at=expires_at,
        image=image,
        snapshot_id=snapshot_id,
        platform=_platform(found),
        metadata=metadata,
        extensions=labels.extensions(found),
    )
    return adoption, warning


def _expiry(found: Mapping[str, str], files: LooseFiles) -> tuple[datetime | None, str | None]:
    if found.get(labels.MANUAL, "").strip().lower() == "true":
        return None, None
    moment = files.expires_at or labels.moment(found.get(labels.EXPIRES_AT, ""))
    return moment, None if moment is not None else NO_EXPIRY


def _platform(found: Mapping[str, str]) -> PlatformSpec | None:
    os, arch = found.get(labels.PLATFORM_OS), found.get(labels.PLATFORM_ARCH)
    return PlatformSpec(os=os, arch=arch) if os and arch else None


def read_loose_files(sandbox_id: str, root: Path = LOOSE_FILES) -> LooseFiles:
    """What opensandbox-server, if it ran as this user, wrote about the sandbox. Blocks."""
    root = root.expanduser()
    expiry = _json(root / "_expiration" / f"{sandbox_id}.json")
    metadata = _json(root / f"{sandbox_id}.json")
    text = expiry.get("expires_at") if isinstance(expiry, dict) else None
    whole = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    return LooseFiles(
        expires_at=labels.moment(text) if isinstance(text, str) else None, metadata=metadata if whole else None
    )


def forget_loose_files(sandbox_id: str, root: Path = LOOSE_FILES) -> None:
    """Remove them, as opensandbox-server does with a sandbox that is gone. Blocks."""
    root = root.expanduser()
    for path in (root / "_expiration" / f"{sandbox_id}.json", root / f"{sandbox_id}.json"):
        path.unlink(missing_ok=True)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
