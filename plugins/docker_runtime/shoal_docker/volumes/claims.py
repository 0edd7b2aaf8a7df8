"""``pvc`` volumes: named volumes of the engine.

A volume that a create makes bears the sandbox's id if it is to go with the sandbox, so that it is found again when the
container whose label names it is gone, or was never made. It goes only if it bears this server's mark, and not while
another container holds it.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import time
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final

import structlog

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.requests import ClaimVolume, Volume
from shoal_docker.engine import Engine, EngineError
from shoal_docker.labels import ID, MANAGED_VOLUMES, PREFIX
from shoal_docker.volumes import paths
from shoal_docker.volumes.host import Place, bind
from shoal_docker.volumes.paths import real

log = structlog.get_logger("shoal.docker")

SERVER: Final = "server"
VOLUME_FOR: Final = PREFIX + "volume-for"
"""The sandbox with which a volume goes."""
INTERNAL: Final = ("opensandbox-runtime-", "opensandbox-win-oem-", "opensandbox-execd-")
"""How the names of volumes begin that hold what runs inside other sandboxes."""
ABANDONED_SECONDS: Final = 600.0
"""Age at which a volume of a sandbox without a container is removed; between the two comes a moment at most."""
_OF_CLAIMS: Final = frozenset({MANAGED_VOLUMES, VOLUME_FOR})
NOT_FOUND: Final = "VOLUME::PVC_NOT_FOUND"
INSPECT_FAILED: Final = "VOLUME::PVC_INSPECT_FAILED"
UNSUPPORTED: Final = "VOLUME::PVC_SUBPATH_UNSUPPORTED_DRIVER"
INVALID_SUB_PATH: Final = "VOLUME::INVALID_SUB_PATH"
_SUB_PATH_API: Final = (1, 45)
"""The first version of the engine's API that mounts a part of a volume, and follows no link out of it."""


class Claims:
    """Named volumes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._owed: set[str] = set()

    def check(self, volume: Volume) -> None:
        """Raise InvalidRequest for a name that no volume of a caller can have."""
        name = _claim(volume).claim_name
        if len(name) < 2 or name.startswith(INTERNAL):
            raise _not_a_callers(volume)

    async def mount(self, volume: Volume, sandbox_id: str, place: Place = real) -> tuple[dict[str, Any], bool]:
        """The mount, its volume made where that is asked for; and whether the volume goes with this sandbox.

        Args:
            place: what the engine gets for an open directory: a part of a volume.

        Raises InvalidRequest and EngineFailure with the API's codes, Unavailable.
        """
        claim = _claim(volume)
        try:
            found = await self._found(claim, sandbox_id)
        except EngineError as error:
            raise error.failure(INSPECT_FAILED, f"The volume {claim.claim_name} could not be used") from None
        if found is None:
            message = f"volumes: there is no volume named {claim.claim_name}, and createIfNotExists is false."
            raise InvalidRequest(NOT_FOUND, message)
        labels = found.get("Labels") or {}
        if any(key.startswith(PREFIX) and key not in _OF_CLAIMS for key in labels):
            raise _not_a_callers(volume)
        goes = labels.get(VOLUME_FOR) == sandbox_id
        if volume.sub_path:
            return await self._part(volume, volume.sub_path, found, place), goes
        return _mount(volume), goes

    async def release(self, sandbox_id: str, named: Iterable[str] | None) -> None:
        """Remove the volumes that go with a sandbox.

        Args:
            named: by its container's label; None where that is gone, and then the engine is asked.

        One that another container holds is tried again with the next release. Raises EngineError, Unavailable.
        """
        names = set(named) if named is not None else set(await self._marked(f"{VOLUME_FOR}={sandbox_id}"))
        for name in names | self._owed:
            await self._remove(name)

    async def sweep(self) -> None:
        """Remove what goes with sandboxes that have no container any more; a create under way makes it again."""
        marked = await self._marked(VOLUME_FOR)
        if not marked:
            return
        standing = await self._engine.call("containers", all=True, filters={"label": [ID]})
        ids = {(each.get("Labels") or {}).get(ID) for each in standing}
        for name, found in marked.items():
            if found["Labels"][VOLUME_FOR] not in ids and _is_old(found):
                log.info("removing a volume whose sandbox is gone", volume=name)
                await self._remove(name)

    async def _found(self, claim: ClaimVolume, sandbox_id: str) -> dict[str, Any] | None:
        """The volume as the engine describes it; two creates that make it at once get the same one."""
        try:
            found: dict[str, Any] = await self._engine.call("inspect_volume", claim.claim_name)
        except EngineError as error:
            if error.status != 404:
                raise
            if not claim.create_if_not_exists:
                return None
            mark = {MANAGED_VOLUMES: SERVER}
            mark |= {VOLUME_FOR: sandbox_id} if claim.delete_on_sandbox_termination else {}
            found = await self._engine.call("create_volume", claim.claim_name, labels=mark)
        return found

    async def _part(self, volume: Volume, sub_path: str, found: dict[str, Any], place: Place = real) -> dict[str, Any]:
        root = str(found.get("Mountpoint") or "")
        if found.get("Driver") != "local" or not root:
            message = f"volumes: subPath of {volume.name} needs a volume of the driver local."
            raise InvalidRequest(UNSUPPORTED, message)
        by_engine = _version(self._engine) >= _SUB_PATH_API
        source = await asyncio.to_thread(self._inside, volume, root, sub_path, _nowhere if by_engine else place)
        if by_engine:
            return _mount(volume) | {"VolumeOptions": {"Subpath": posixpath.normpath(sub_path)}}
        if source is None:
            message = f"volumes: subPath of {volume.name}: this server cannot look into the engine's volumes."
            raise InvalidRequest(UNSUPPORTED, message)
        return bind(source, volume)

    def _inside(self, volume: Volume, root: str, sub_path: str, place: Place) -> str | None:
        """What the engine gets, the part made where it is missing with the owner and mode of the volume's root;
        None if this server cannot see it. Blocks. Raises InvalidRequest if it leads out of the volume.
        """
        if self._engine.remote or not os.access(root, os.R_OK | os.X_OK):
            return None
        try:
            with ExitStack() as handles:
                top = paths.opened(paths.resolved(root))
                handles.callback(os.close, top)
                handle = paths.opened_below(top, sub_path, like_top=True)
                handles.callback(os.close, handle)
                if not paths.is_within(real(handle), [real(top)]):
                    raise paths.Unsafe
                return place(handle)
        except paths.Unsafe:
            message = f"volumes: subPath of {volume.name} leads out of the volume."
            raise InvalidRequest(INVALID_SUB_PATH, message) from None
        except OSError as error:
            message = f"volumes: subPath of {volume.name} cannot be made: {error.strerror}."
            raise InvalidRequest(INVALID_SUB_PATH, message) from None

    async def _marked(self, label: str) -> dict[str, dict[str, Any]]:
        answer = await self._engine.call("volumes", filters={"label": [label]})
        return {str(each["Name"]): each for each in answer.get("Volumes") or []}

    async def _remove(self, name: str) -> None:
        try:
            found = await self._engine.call("inspect_volume", name)
            if (found.get("Labels") or {}).get(MANAGED_VOLUMES) == SERVER:
                await self._engine.call("remove_volume", name)
        except EngineError as error:
            if error.status == 409:
                self._owed.add(name)
                log.info("a volume stays while another sandbox uses it", volume=name)
                return
            if error.status != 404:
                raise
        self._owed.discard(name)


def _claim(volume: Volume) -> ClaimVolume:
    assert volume.pvc is not None  # noqa: S101 - the caller looked
    return volume.pvc


def _not_a_callers(volume: Volume) -> InvalidRequest:
    return InvalidRequest(INVALID_PARAMETER, f"volumes: the claimName of {volume.name} cannot be used here.")


def _nowhere(_: int) -> str:
    """The engine mounts the part by itself."""
    return ""


def _mount(volume: Volume) -> dict[str, Any]:
    name = _claim(volume).claim_name
    return {"Type": "volume", "Source": name, "Target": volume.mount_path, "ReadOnly": volume.read_only}


def _is_old(found: dict[str, Any]) -> bool:
    """Not so for one that another server on this engine may just have made for a container to come."""
    try:
        made = datetime.fromisoformat(str(found.get("CreatedAt")))
    except ValueError:
        return False
    return made.tzinfo is not None and made.timestamp() < time.time() - ABANDONED_SECONDS


def _version(engine: Engine) -> tuple[int, ...]:
    """Of the engine's API; (0,) if it does not say."""
    text = str(engine.version.get("ApiVersion") or "0")
    return tuple(int(part) for part in text.split(".") if part.isdecimal())
