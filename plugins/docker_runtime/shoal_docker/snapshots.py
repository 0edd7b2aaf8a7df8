"""Snapshots: a container's file system as an image of its own (docs/wire/docker.md section 11).

The engine copies a container's labels and environment into the image. What a server wrote there is blanked on the way:
a restored sandbox is a new one and must not be taken for its source. The image's name follows from the snapshot's id,
so a capture that a crash cut short is found, or made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog
from docker import APIClient

from shoal.errors import Conflict, NotFound
from shoal_docker import labels
from shoal_docker.census import Census
from shoal_docker.engine import Engine, EngineError, refuse
from shoal_docker.environment import ID_VARIABLE, INIT_VARIABLE
from shoal_docker.observe import Summary, state_of

log = structlog.get_logger("shoal.docker")

REPOSITORY: Final = "opensandbox-snapshots"
OF: Final = labels.PREFIX + "snapshot-of"
"""On the image: the sandbox that it was taken of."""
FAILED: Final = "DOCKER::SNAPSHOT_FAILED"
COMMIT_SECONDS: Final = 900.0
"""How long the engine may take over one commit: it writes all that the sandbox has changed."""


def reference(snapshot_id: str) -> str:
    """The name of a snapshot's image."""
    return f"{REPOSITORY}:{snapshot_id}"


class ImageSnapshots:
    """The snapshots of one engine."""

    def __init__(self, engine: Engine, census: Census) -> None:
        self._engine = engine
        self._census = census

    async def take(self, sandbox_id: str, snapshot_id: str) -> str:
        """Capture a sandbox's own container. Raises NotFound, Conflict, EngineFailure and Unavailable."""
        name = reference(snapshot_id)
        try:
            if await self._described(name) is not None:
                return name  # an earlier try came that far
            container = (await self._census.one(sandbox_id)).main
            if container is None:
                raise NotFound("DOCKER::SANDBOX_NOT_FOUND", "The sandbox has no container any more.")
            await self._commit(container, snapshot_id, sandbox_id)
        except EngineError as error:
            raise error.failure(FAILED, "The sandbox could not be captured") from None
        return name

    async def remove(self, snapshot_id: str, image: str) -> None:
        """Remove the image; absent is success. Raises Conflict while a sandbox uses it, EngineFailure, Unavailable."""
        try:
            users = await self._engine.call("containers", all=True, filters={"ancestor": [image]})
            if users:
                raise Conflict("SNAPSHOT::DELETE_CONFLICT", "A sandbox still uses the snapshot.")
            await self._engine.call("remove_image", image)
        except EngineError as error:
            if error.status == 409:
                raise Conflict("SNAPSHOT::DELETE_CONFLICT", "A sandbox still uses the snapshot.") from None
            if error.status != 404:
                raise error.failure(FAILED, "The snapshot's image could not be removed") from None

    async def _commit(self, container: Summary, snapshot_id: str, sandbox_id: str) -> None:
        if state_of(container) not in ("running", "paused"):
            raise Conflict("SNAPSHOT::INVALID_SOURCE_STATE", "The sandbox does not run.")
        described = await self._engine.call("inspect_container", container["Id"])
        config = described.get("Config") or {}
        source = await self._described(str(described.get("Image") or "")) or {}
        carried = (source.get("Config") or {}).get("Labels") or {}
        changes = {
            "Labels": {**blank(config.get("Labels") or {}, carried), OF: sandbox_id},
            "Env": [f"{name}=" for name in (ID_VARIABLE, INIT_VARIABLE) if _has(config.get("Env") or [], name)],
        }
        params = {"container": container["Id"], "repo": REPOSITORY, "tag": snapshot_id, "pause": "true"}
        log.info("capturing", sandbox_id=sandbox_id, snapshot_id=snapshot_id)
        await self._engine.run(lambda client: _commit(client, params, changes))

    async def _described(self, image: str) -> Mapping[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.call("inspect_image", image)
        except EngineError as error:
            if error.status == 404:
                return None
            raise
        return found


def blank(found: Mapping[str, str], carried: Mapping[str, str]) -> dict[str, str]:
    """The container's labels said to be nothing, but for those of its image: a commit can only add to them."""
    return {key: "" for key, value in found.items() if key.startswith(labels.PREFIX) or carried.get(key) != value}


def _has(env: Iterable[str], name: str) -> bool:
    return any(entry.partition("=")[0] == name for entry in env)


def _commit(client: APIClient, params: Mapping[str, str], changes: Mapping[str, Any]) -> None:
    """Without the SDK's own method, which knows no time-out of its own for this call."""
    url = f"{client.base_url}/v{client.api_version}/commit"
    answer = client.post(url, params=params, json=changes, timeout=COMMIT_SECONDS)
    with answer:
        if not answer.ok:
            refuse(answer)
