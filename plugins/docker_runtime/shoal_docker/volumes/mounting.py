"""All volumes of one sandbox: checked on the request path, prepared before the container, let go of after it."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from msgspec import Struct

from shoal.config.settings import StorageSettings
from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import Volume
from shoal_docker.engine import Engine
from shoal_docker.labels import MANAGED_VOLUMES, json_list
from shoal_docker.volumes.buckets import OSSFS_MOUNTS, Buckets
from shoal_docker.volumes.claims import INVALID_SUB_PATH, Claims
from shoal_docker.volumes.found import identities
from shoal_docker.volumes.host import HostPaths, Place, bind
from shoal_docker.volumes.pins import Pins, Placed

log = structlog.get_logger("shoal.docker")

_ROOT: Final = "/"
_OWN_KERNEL: Final = ("runsc", "gvisor", "kata", "sysbox")
"""In the names of runtimes whose sandboxes do not mount what the engine's other containers would."""


class Swapped(Exception):
    """Something else was mounted than what was checked."""


class Unseen(Exception):
    """The engine does not see what this server mounts."""


class Prepared(Struct, kw_only=True, frozen=True):
    """What a create call needs.

    Attributes:
        mounts: for the HostConfig's ``Mounts``.
        managed: names of volumes that go with the sandbox.
        buckets: paths of the host at which its buckets are mounted.
        placed: what must be found in the container.
    """

    mounts: list[dict[str, Any]] = []
    managed: list[str] = []
    buckets: list[str] = []
    placed: list[Placed] = []

    def labels(self, *managed: str) -> dict[str, str]:
        """The labels of the sandbox's container; ``managed``: more volumes that go with it."""
        found = {MANAGED_VOLUMES: [*self.managed, *managed], OSSFS_MOUNTS: self.buckets}
        return {key: json.dumps(items, separators=(",", ":")) for key, items in found.items() if items}


class Volumes:
    """Volumes of one engine's sandboxes.

    Args:
        binds: ``docker.sandbox_binds``, which every sandbox has besides.
        runtime: the engine's name of the runtime of sandboxes; None is its own default.
    """

    def __init__(
        self, engine: Engine, storage: StorageSettings, binds: Sequence[str] = (), runtime: str | None = None
    ) -> None:
        self._engine = engine
        self._runtime = runtime
        self._host = HostPaths(storage.allowed_host_paths)
        self._claims = Claims(engine)
        self._buckets = Buckets(storage.ossfs_mount_root)
        self._pins = Pins()
        self._gives_paths = bool(storage.allowed_host_paths)
        self._taken = frozenset(posixpath.normpath(parts[1]) for bound in binds if len(parts := bound.split(":")) > 1)

    async def start(self) -> None:
        """Learn what the engine's containers hold; the engine must be up. Raises EngineError, Unavailable."""
        shared = await asyncio.to_thread(shares_files, self._engine)
        self._host.shared = self._buckets.shared = shared
        if not shared:
            log.warning("the engine's files are not this server's: host volumes are the allowed paths themselves")
        unpinned = await asyncio.to_thread(self._pins.start, self._engine)
        if unpinned is not None and shared and self._gives_paths:
            log.warning("volumes are given to the engine by path, which it looks up again", why=unpinned)
        await self._claims.sweep()
        holders = await self._engine.call("containers", all=True, filters={"label": [OSSFS_MOUNTS]})
        await self._buckets.recall({str(each["Id"]): each.get("Labels") or {} for each in holders})

    def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be mounted, from the plan alone. Raises InvalidRequest and InternalError."""
        taken = set(self._taken)
        for volume in plan.volumes:
            self._check_target(volume, taken)
            self._check_source(volume)

    def _check_source(self, volume: Volume) -> None:
        if "\0" in (volume.sub_path or ""):
            raise InvalidRequest(INVALID_SUB_PATH, f"volumes: subPath of {volume.name} holds a null byte.")
        if volume.host is not None:
            self._host.check(volume)
        elif volume.pvc is not None:
            self._claims.check(volume)
        elif volume.ossfs is not None:
            self._buckets.check(volume)

    def _check_target(self, volume: Volume, taken: set[str]) -> None:
        target = posixpath.normpath("/" + volume.mount_path.lstrip("/"))
        if target == _ROOT or "\0" in target:
            message = f"volumes: {volume.name} cannot be mounted at {target[:64]!r}."
            raise InvalidRequest(INVALID_PARAMETER, message)
        if target in taken:
            message = f"volumes: the mountPath of {volume.name} is that of another mount."
            raise InvalidRequest(INVALID_PARAMETER, message)
        taken.add(target)

    async def prepare(self, sandbox_id: str, volumes: Sequence[Volume], *, trusted: bool = False) -> Prepared:
        """Make what is missing. May be repeated; whatever was made is let go of by `release`, also after a failure.

        Args:
            trusted: the volumes are the operator's own: any path of the host, which must exist.

        Raises ShoalErrors with the API's codes.
        """
        mounts: list[dict[str, Any]] = []
        managed: list[str] = []
        buckets: list[str] = []
        placed: list[Placed] = []

        def place(handle: int) -> str:
            path, what = self._pins.place(sandbox_id, handle)
            placed.append(what)
            return path

        for volume in volumes:
            if not trusted:
                self._check_source(volume)
            if volume.host is not None:
                mounts.append(await self._host_mount(volume, volume.host.path, place, trusted=trusted))
            elif volume.pvc is not None:
                mount, goes = await self._claims.mount(volume, sandbox_id, place)
                mounts.append(mount)
                managed += [volume.pvc.claim_name] if goes else []
            elif volume.ossfs is not None:
                path = await self._buckets.hold(sandbox_id, volume)
                mounts.append(bind(path, volume))
                buckets.append(path)
        return Prepared(mounts=mounts, managed=_unique(managed), buckets=_unique(buckets), placed=placed)

    async def _host_mount(self, volume: Volume, path: str, place: Place, *, trusted: bool) -> dict[str, Any]:
        return bind(path, volume) if trusted else await asyncio.to_thread(self._host.mount, volume, place)

    async def verify(self, container: str, placed: Sequence[Placed]) -> None:
        """Compare what a container that was just started has mounted with what was checked.

        One that has ended, or whose mounts cannot be seen from here, passes. Raises Swapped, Unseen, EngineError and
        Unavailable.
        """
        if not placed or not self._comparable:
            return
        process = await self._process(container)
        found = await asyncio.to_thread(identities, process) if process else None
        if found is None or found >= Counter(each.identity for each in placed):
            return
        if process != await self._process(container):
            return  # it has ended, and the number may be another's
        if any(each.stand_in in found for each in placed):
            raise Unseen
        raise Swapped

    def without_pins(self) -> None:
        """The engine does not see what is mounted here: from now on it is given paths."""
        self._pins.able = False

    async def sweep(self, wanted: Callable[[str], bool]) -> None:
        """Remove the pins of sandboxes that are gone. Never raises."""
        try:
            await asyncio.to_thread(self._pins.sweep, wanted)
        except OSError as error:
            log.warning("mounts of former sandboxes could not be removed", problem=str(error))

    @property
    def _comparable(self) -> bool:
        """Not so for a second kernel, which mounts by itself, nor in a machine of the engine's own."""
        runtime = self._runtime or str(self._engine.info.get("DefaultRuntime") or "")
        return self._host.shared and not any(word in runtime for word in _OWN_KERNEL)

    async def _process(self, container: str) -> int:
        inspected = await self._engine.call("inspect_container", container)
        return int((inspected.get("State") or {}).get("Pid") or 0)

    async def release(self, sandbox_id: str, labels: Mapping[str, str]) -> None:
        """Let go of everything of a sandbox whose containers are gone. Nothing left is success; may be repeated.

        Args:
            labels: of its container; empty where that was gone already. Raises EngineError, Unavailable.
        """
        await self._buckets.release(sandbox_id, json_list(labels.get(OSSFS_MOUNTS, "")))
        try:
            await asyncio.to_thread(self._pins.release, sandbox_id)
        except OSError as error:
            log.warning("a sandbox's mounts could not be removed", sandbox_id=sandbox_id, problem=str(error))
        await self._claims.release(sandbox_id, json_list(labels.get(MANAGED_VOLUMES, "")) if labels else None)


def _unique(items: list[str]) -> list[str]:
    """Two volumes of a request may be parts of one."""
    return list(dict.fromkeys(items))


def shares_files(engine: Engine) -> bool:
    """Whether a path means the same to the engine as to this process. Blocks.

    An engine of this machine has its own directory where it says; in a container beside the engine there is none.
    """
    if engine.remote:
        return False
    if sys.platform != "linux":
        return True  # a desktop's engine in a virtual machine, which shares directories under their own names
    try:
        os.lstat(Path(str(engine.info.get("DockerRootDir") or "/var/lib/docker")))
    except PermissionError:
        return True
    except OSError:
        return False
    return True
