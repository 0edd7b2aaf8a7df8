"""``host`` volumes: what is below ``storage.allowed_host_paths``, and nothing that a symbolic link makes of it.

The resolved path is mounted, not the one that was written: a link that is turned round after the check leads nowhere.
What remains is a directory swapped for a link in the instant between the check and the engine's mount, by somebody who
may write beside it; sandboxes that share a tree should not be given each other's parents.

Where the engine's files are not this server's (an engine on another machine, a server in a container), links cannot be
resolved. There only the allowed paths themselves can be mounted, which no sandbox can replace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import Volume
from shoal_docker.volumes import paths

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

    def mount(self, volume: Volume) -> dict[str, Any]:
        """The mount, its directory made where it is missing. Blocks.

        Raises InvalidRequest if it leads out of the allowed paths, EngineFailure if it cannot be made.
        """
        path = _path(volume)
        source = paths.joined(path, volume.sub_path)
        if self._resolvable(path):
            source = paths.resolved(source)
            below = volume.sub_path is None or paths.is_within(source, [paths.resolved(path)])
            if not below or not paths.is_within(source, map(paths.resolved, self._allowed)):
                raise _refused(volume)
            self._ensure(volume, source)
        return bind(source, volume)

    def _resolvable(self, path: str) -> bool:
        """Not so for a path with a drive letter: it is the engine's alone."""
        return self.shared and path.startswith("/")

    def _ensure(self, volume: Volume, source: str) -> None:
        try:
            paths.ensure(source)
        except paths.Unsafe as error:
            raise _refused(volume, f", or cannot be followed ({error})") from None
        except OSError as error:
            message = f"volumes: the directory of {volume.name} cannot be made: {error.strerror}."
            raise EngineFailure(CREATE_FAILED, message) from None


def bind(source: str, volume: Volume) -> dict[str, Any]:
    """A path of the host as an engine's mount; unlike in a bind string, a colon is an ordinary character."""
    return {"Type": "bind", "Source": source, "Target": volume.mount_path, "ReadOnly": volume.read_only}


def _path(volume: Volume) -> str:
    assert volume.host is not None  # noqa: S101 - the caller looked
    return volume.host.path


def _refused(volume: Volume, more: str = "") -> InvalidRequest:
    message = f"volumes: the host path of {volume.name} is not below storage.allowed_host_paths{more}."
    return InvalidRequest(NOT_ALLOWED, message)
