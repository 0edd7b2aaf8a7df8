"""``host`` volumes: directories of this machine inside a sandbox (docs/wire/docker.md section 9)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shoal.errors import EngineFailure, InvalidRequest
from shoal.kit.walk import Owner, descend, identity, is_directory, make_file, open_path
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.requests import Volume
from shoal_local.root.binds import Bind, parts


class HostVolumes:
    """Checks and prepares host volumes.

    Args:
        allowed: ``storage.allowed_host_paths``; empty refuses all.
        owner: (uid, gid) that a directory made here is given; None leaves it to this process.
        private: paths of the server that no volume may contain or lie in.
    """

    def __init__(self, allowed: Sequence[str], owner: Owner, private: Sequence[Path] = ()) -> None:
        self._allowed = [prefix.rstrip("/") or "/" for prefix in allowed]
        self._owner = owner
        self._private = private

    def check(self, volumes: Sequence[Volume]) -> None:
        """Raises InvalidRequest with the API's code for the first volume that cannot be. Blocks."""
        names: set[str] = set()
        targets: dict[tuple[str, ...], str] = {}
        for volume in volumes:
            if volume.name in names:
                raise InvalidRequest("VOLUME::DUPLICATE_NAME", f"there are two volumes named {volume.name}")
            names.add(volume.name)
            if (other := targets.setdefault(parts(volume.mount_path), volume.name)) != volume.name:
                text = f"volumes {other} and {volume.name} have the same mountPath {volume.mount_path}"
                raise InvalidRequest(INVALID_PARAMETER, text)
            self._source(volume)

    @contextmanager
    def prepared(self, volumes: Sequence[Volume]) -> Iterator[tuple[Bind, ...]]:
        """The binds, those further up first, their directories made where missing.

        While the context is open, so is each volume, and no other file can get its identity. Raises EngineFailure if
        one cannot be made, InvalidRequest for one that cannot be mounted within another. Blocks.
        """
        with ExitStack() as opened:
            binds: list[Bind] = []
            handles: dict[str, int] = {}
            for volume in sorted(volumes, key=lambda volume: len(parts(volume.mount_path))):
                bind, handle = self._bind(volume, opened)
                around = _around(volume, binds)
                if around is not None:
                    bind = self._within(bind, around, handles[around.target], opened)
                binds.append(bind)
                handles[bind.target] = handle
            yield tuple(binds)

    def _bind(self, volume: Volume, opened: ExitStack) -> tuple[Bind, int]:
        real = Path(os.path.realpath(self._source(volume)))
        self._allow(volume, real, resolved=True)
        try:
            handle = open_path(real, make=True, owner=self._owner)
        except OSError as error:
            text = f"volume {volume.name}: host path {real} cannot be opened or made: {error.strerror}"
            raise EngineFailure("VOLUME::HOST_PATH_CREATE_FAILED", text) from None
        opened.callback(os.close, handle)
        directory = is_directory(handle)
        return Bind(volume.name, real, volume.mount_path, volume.read_only, identity(handle), directory), handle

    def _within(self, bind: Bind, around: Bind, handle: int, opened: ExitStack) -> Bind:
        """The bind with the file of the volume around it that it covers, made if it is missing there."""
        rest = parts(bind.target)[len(parts(around.target)) :]
        make = not around.read_only
        try:
            if bind.directory:
                point = descend(handle, rest, make=make, owner=self._owner)
            else:
                point = self._file(descend(handle, rest[:-1], make=make, owner=self._owner), rest[-1], make, opened)
        except OSError as error:
            why = f"{bind.target} is not a place in the volume {around.name} that can be mounted on: {error.strerror}"
            raise InvalidRequest(INVALID_PARAMETER, f"volume {bind.name}: {why}") from None
        opened.callback(os.close, point)
        if is_directory(point) is not bind.directory:
            kinds = ("a directory", "a file") if bind.directory else ("a file", "a directory")
            text = f"volume {bind.name} is {kinds[0]}, and {bind.target} is {kinds[1]} in the volume {around.name}"
            raise InvalidRequest(INVALID_PARAMETER, text)
        return bind.placed(identity(point))

    def _file(self, folder: int, name: str, make: bool, opened: ExitStack) -> int:
        opened.callback(os.close, folder)
        try:
            return descend(folder, [name])
        except FileNotFoundError:
            if not make:
                raise
        return make_file(folder, name, self._owner)

    def _source(self, volume: Volume) -> Path:
        """The path as written, joined with its subPath and checked in every way that the API asks for."""
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
        if any(path.is_relative_to(secret) or secret.is_relative_to(path) for secret in self._private):
            text = f"volume {volume.name}: the server keeps files of its own in {path}"
            raise InvalidRequest("VOLUME::HOST_PATH_NOT_ALLOWED", text)


def _around(volume: Volume, binds: Sequence[Bind]) -> Bind | None:
    """The closest of these that is mounted further up on the way to the volume's place."""
    target = parts(volume.mount_path)
    above = [bind for bind in binds if target[: len(parts(bind.target))] == parts(bind.target)]
    return max(above, key=lambda bind: len(parts(bind.target)), default=None)
