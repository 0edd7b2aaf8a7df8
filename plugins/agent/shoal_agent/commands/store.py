"""The private directory for the output of background commands."""

from __future__ import annotations

import contextlib
import os

from shoal_agent.http.errors import RUNTIME_ERROR, ApiError

PREFIX = "shoal-agent-"
MAX_OUTPUT_BYTES = 256 * 1024 * 1024
"""Bytes at the end of a command's output that stay while it writes more and more."""
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class OutputStore:
    """Made when it is first needed, made anew if somebody deletes it, removed at the end."""

    def __init__(self, candidates: list[str]) -> None:
        self._candidates = candidates
        self._path: str | None = None

    def create(self, name: str) -> tuple[str, int]:
        """A new empty file that only this user may read: its path, and a descriptor that appends.

        Raises `ApiError` 507 if no directory takes it.
        """
        for _ in range(2):
            try:
                path = os.path.join(self._directory(), name)
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                return path, os.open(path, flags, 0o600)
            except FileNotFoundError:
                self._path = None  # it has been deleted
            except OSError as error:
                raise _unusable(self._candidates, error) from None
        raise _unusable(self._candidates, None)

    def _directory(self) -> str:
        if self._path is None:
            self._path = self._made()
        return self._path

    def _made(self) -> str:
        last: OSError | None = None
        for base in self._candidates:
            path = os.path.join(base, f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}")
            try:
                os.mkdir(path, 0o700)
            except OSError as error:
                last = error
            else:
                _sweep(base, path)
                return path
        raise _unusable(self._candidates, last)

    def remove(self) -> None:
        """All of it."""
        if self._path is not None:
            _remove(self._path)
            self._path = None


def candidates(environment: dict[str, str]) -> list[str]:
    """Where temporary files may be."""
    named = environment.get("TMPDIR")
    return [*([named] if named and os.path.isabs(named) else []), "/tmp", "/var/tmp", "/dev/shm", "/run"]  # noqa: S108


def _sweep(base: str, own: str) -> None:
    """Removes what agents that are gone have left."""
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            path = os.path.join(base, name)
            pid = name.removeprefix(PREFIX).partition("-")[0]
            if path == own or not name.startswith(PREFIX) or not pid.isdigit() or os.path.exists(f"/proc/{pid}"):
                continue
            if os.lstat(path).st_uid == os.geteuid():
                _remove(path)


def _remove(directory: str) -> None:
    """A directory of files, as far as it can be removed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        os.rmdir(directory)


def _unusable(candidates: list[str], error: OSError | None) -> ApiError:
    reason = f": {error.strerror}" if error is not None else ""
    return ApiError(507, RUNTIME_ERROR, f"no room for a command's output in any of {', '.join(candidates)}{reason}")


def shorten(path: str, start: int) -> int:
    """Gives the disk back what lies before the last `MAX_OUTPUT_BYTES` bytes; offsets stay as they are.

    Returns the offset of the first byte that is there; `start` is what it was. Without a file system that can do it the
    file stays whole.
    """
    try:
        size = os.stat(path).st_size
        if size - start < 2 * MAX_OUTPUT_BYTES:
            return start
        import ctypes  # hardly any agent ever needs it

        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (OSError, ImportError):
        return start
    try:
        until = size - MAX_OUTPUT_BYTES
        done = libc.fallocate64(descriptor, _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_longlong(0), ctypes.c_longlong(until))
    except AttributeError:
        return start
    finally:
        os.close(descriptor)
    return until if done == 0 else start
