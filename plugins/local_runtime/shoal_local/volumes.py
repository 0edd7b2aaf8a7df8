"""``host`` volumes: directories of this machine inside a sandbox (contract: docker.md section 9)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.requests import Volume
from shoal_local.root import Bind


class HostVolumes:
    """Checks and prepares host volumes.

    Args:
        allowed: ``storage.allowed_host_paths``; empty refuses all.
        owner: (uid, gid) that a directory made here is given; None leaves it to this process.
    """

    def __init__(self, allowed: Sequence[str], owner: tuple[int, int] | None) -> None:
        self._allowed = [prefix.rstrip("/") or "/" for prefix in allowed]
        self._owner = owner

    def check(self, volumes: Sequence[Volume]) -> None:
        """Raises InvalidRequest with the contract's code for the first volume that cannot be."""
        names: set[str] = set()
        for volume in volumes:
            if volume.name in names:
                raise InvalidRequest("VOLUME::DUPLICATE_NAME", f"there are two volumes named {volume.name}")
            names.add(volume.name)
            self._source(volume)

    def prepare(self, volumes: Sequence[Volume]) -> tuple[Bind, ...]:
        """The binds, their directories made where missing. Raises EngineFailure if one cannot be made. Blocks."""
        return tuple(self._bind(volume) for volume in volumes)

    def _bind(self, volume: Volume) -> Bind:
        source = self._source(volume)
        if not source.exists():
            self._make(source)
        real = Path(os.path.realpath(source))
        self._allow(volume, real, resolved=True)
        status = real.stat()
        return Bind(
            source=real,
            target=volume.mount_path,
            read_only=volume.read_only,
            identity=f"{status.st_dev}:{status.st_ino}",
            directory=real.is_dir(),
        )

    def _make(self, path: Path) -> None:
        try:
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            for folder in reversed(missing):
                folder.mkdir(mode=0o755, exist_ok=True)
                if self._owner is not None:
                    os.chown(folder, *self._owner)
        except OSError as error:
            text = f"host path {path} cannot be made: {error.strerror}"
            raise EngineFailure("VOLUME::HOST_PATH_CREATE_FAILED", text) from None

    def _source(self, volume: Volume) -> Path:
        """The path as written, joined with its subPath and checked in every way that the contract asks for."""
        if volume.host is None:
            raise InvalidRequest(INVALID_PARAMETER, f"volume {volume.name}: the local runtime mounts host paths only")
        text = volume.host.path
        if "\0" in text or "\n" in text or not text.startswith("/") or "//" in text or ".." in text.split("/"):
            raise InvalidRequest("VOLUME::INVALID_HOST_PATH", f"volume {volume.name}: {text!r} is not a plain path")
        if len(text) > 1 and text.endswith("/"):
            raise InvalidRequest("VOLUME::INVALID_HOST_PATH", f"volume {volume.name}: {text!r} ends with a slash")
        path = Path(text)
        self._allow(volume, path, resolved=False)
        if volume.sub_path is not None:
            path = self._below(volume, path, volume.sub_path)
        self._allow(volume, Path(os.path.realpath(path)), resolved=True)
        return path

    def _below(self, volume: Volume, path: Path, sub_path: str) -> Path:
        if sub_path.startswith("/") or ".." in sub_path.split("/") or "\0" in sub_path or "\n" in sub_path:
            raise InvalidRequest("VOLUME::INVALID_SUB_PATH", f"volume {volume.name}: subPath must stay inside it")
        joined = path / sub_path
        real = Path(os.path.realpath(joined))
        if not real.is_relative_to(os.path.realpath(path)):
            raise InvalidRequest("VOLUME::INVALID_SUB_PATH", f"volume {volume.name}: subPath leads out of the volume")
        return joined

    def _allow(self, volume: Volume, path: Path, *, resolved: bool) -> None:
        prefixes = [os.path.realpath(prefix) for prefix in self._allowed] if resolved else self._allowed
        if not any(path.is_relative_to(prefix) for prefix in prefixes):
            raise InvalidRequest(
                "VOLUME::HOST_PATH_NOT_ALLOWED",
                f"volume {volume.name}: {path} is not below any of storage.allowed_host_paths",
            )
