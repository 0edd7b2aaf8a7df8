"""``host`` volumes: what is below ``storage.allowed_host_paths``, and nothing that a symbolic link makes of it.

What is mounted is the directory that was checked: it is opened, the place where it lies is compared with the allowed
paths, and the engine is given a pin of it (`shoal_docker.volumes.pins`), or where there can be none, its resolved path.

Where the engine's files are not this server's (an engine on another machine, a server in a container), links cannot be
resolved. There only the allowed paths themselves can be mounted, which no sandbox can replace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final, TypeAlias

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import Volume
from shoal_docker.volumes import paths
from shoal_docker.volumes.paths import real

Place: TypeAlias = Callable[[int], str]
"""The path by which the engine finds what a descriptor is of."""

INVALID_PATH: Final = "VOLUME::INVALID_HOST_PATH"
NOT_ALLOWED: Final = "VOLUME::HOST_PATH_NOT_ALLOWED"
CREATE_FAILED: Final = "VOLUME::HOST_PATH_CREATE_FAILED"


class HostPaths:
    """Host volumes.

    Attributes:
        shared: whether the engine sees the files that this server sees.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = [prefix.rstrip("/") or "/" for prefix in map(str.strip, allowed) if prefix]
        self.shared = True

    def check(self, volume: Volume) -> None:
        """Refuse, from the texts alone, what is outside the allowed paths. Raises InvalidRequest."""
        path = _path(volume)
        if "\0" in path:
            raise InvalidRequest(INVALID_PATH, f"volumes: host.path of {volume.name} holds a null byte.")
        whole = paths.joined(path, volume.sub_path)
        if self._resolvable(path):
            if not paths.is_within(path, self._allowed) or not paths.is_within(whole, self._allowed):
                raise _refused(volume)
        elif whole not in self._allowed:
            raise _refused(volume, "; on this engine only those paths themselves can be mounted, none below them")

    def mount(self, volume: Volume, place: Place = real) -> dict[str, Any]:
        """The mount, its directory made where it is missing. Blocks.

        Args:
            place: what the engine gets for an open file.

        Raises InvalidRequest if it leads out of the allowed paths, EngineFailure if it cannot be made or placed.
        """
        path = _path(volume)
        if not self._resolvable(path):
            return bind(paths.joined(path, volume.sub_path), volume)
        try:
            return bind(self._placed(volume, paths.resolved(path), place), volume)
        except paths.Unsafe as error:
            raise _refused(volume, f", or cannot be followed ({error})") from None
        except OSError as error:
            message = f"volumes: the directory of {volume.name} cannot be made: {error.strerror}."
            raise EngineFailure(CREATE_FAILED, message) from None

    def _placed(self, volume: Volume, path: str, place: Place) -> str:
        allowed = [paths.resolved(prefix) for prefix in self._allowed]
        with ExitStack() as handles:
            if not paths.is_within(path, allowed):
                raise _refused(volume)
            top = paths.opened(path)
            handles.callback(os.close, top)
            handle = paths.opened_below(top, volume.sub_path)
            handles.callback(os.close, handle)
            if not paths.is_within(real(handle), allowed):
                raise _refused(volume)
            return place(handle)

    def _resolvable(self, path: str) -> bool:
        """Not so for a path with a drive letter: it is the engine's alone."""
        return self.shared and path.startswith("/")


def bind(source: str, volume: Volume) -> dict[str, Any]:
    """A path of the host as an engine's mount; unlike in a bind string, a colon is an ordinary character."""
    return {"Type": "bind", "Source": source, "Target": volume.mount_path, "ReadOnly": volume.read_only}


def _path(volume: Volume) -> str:
    assert volume.host is not None  # noqa: S101 - the caller looked
    return volume.host.path


def _refused(volume: Volume, more: str = "") -> InvalidRequest:
    message = f"volumes: the host path of {volume.name} is not below storage.allowed_host_paths{more}."
    return InvalidRequest(NOT_ALLOWED, message)
