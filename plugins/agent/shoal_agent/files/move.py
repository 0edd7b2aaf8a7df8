"""Moving files and directories, across file systems too."""

from __future__ import annotations

import errno
import os
import stat
import sys

from shoal_agent.files.failures import FILE_EXISTS, reported
from shoal_agent.files.permissions import Change
from shoal_agent.files.tree import parents_made, remove_directory
from shoal_agent.http.errors import INVALID_REQUEST_BODY, ApiError

_PIECE = 16 * 1024 * 1024
_UNCOPYABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def move_all(moves: list[tuple[str, str]]) -> None:
    """One after the other; stops at the first error. Raises `ApiError`."""
    for source, target in moves:
        move(source, target)


def move(source: str, target: str) -> None:
    """Moves `source`, a link itself, to `target`, which must not exist; makes its parents. Raises `ApiError`."""
    with reported(source):
        os.lstat(source)
    if target.startswith(source.rstrip("/") + "/"):
        raise ApiError(400, INVALID_REQUEST_BODY, f"{source} cannot be moved into itself")
    if os.path.lexists(target):
        raise ApiError(409, FILE_EXISTS, f"{target} exists already")
    with reported(target), parents_made(target, Change()):
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _move_by_copy(source, target)


def _move_by_copy(source: str, target: str) -> None:
    """The copy grows beside the target and gets its name when it is complete; then the source goes."""
    if not os.access(os.path.dirname(source), os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, f"{source} cannot be removed from its folder")
    beside = f"{os.path.dirname(target).rstrip('/')}/.move-{os.urandom(8).hex()}"
    try:
        _Copier().copy(source, beside)
        if os.path.lexists(target):
            raise ApiError(409, FILE_EXISTS, f"{target} exists already")
        os.rename(beside, target)
    except BaseException:
        _remove(beside)
        raise
    _remove(source)


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            remove_directory(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


class _Copier:
    """Copies a tree with owners, modes, times, attributes, links and hard links."""

    def __init__(self) -> None:
        self._copied: dict[tuple[int, int], str] = {}

    def copy(self, source: str, target: str) -> None:
        pending = [(source, target)]
        directories: list[tuple[str, str, os.stat_result]] = []
        while pending:
            source, target = pending.pop()
            status = os.lstat(source)
            if stat.S_ISDIR(status.st_mode):
                os.mkdir(target, 0o700)
                directories.append((source, target, status))
                with os.scandir(source) as scan:
                    pending.extend((entry.path, f"{target}/{entry.name}") for entry in scan)
            else:
                self._copy_one(source, target, status)
        for source, target, status in reversed(directories):  # last: a copy inside changes the times
            _copy_status(source, target, status)

    def _copy_one(self, source: str, target: str, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._copied:
            os.link(self._copied[key], target, follow_symlinks=False)
            return
        self._copied[key] = target
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(source), target)
        elif stat.S_ISREG(status.st_mode):
            copy_content(source, target)
        else:
            os.mknod(target, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
        _copy_status(source, target, status)


def _copy_status(source: str, target: str, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    except PermissionError:
        mode &= 0o777  # it is now another's: nothing runs under a name that it was not given by
    copy_attributes(source, target)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, mode)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_attributes(source: str, target: str | int) -> bool:
    """Copies extended attributes, access lists among them, of a link its own. Returns whether all could be."""
    complete = True
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError:
        return True  # the file system has none
    for name in names:
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError:
            complete = False
    return complete


def copy_content(source: str, target: str) -> None:
    """Makes the file `target` with the content of `source`. Raises OSError."""
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            transfer(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def transfer(reading: int, writing: int, count: int | None = None) -> None:
    """Copies `count` bytes (None: up to the end) between the positions of two descriptors. Raises OSError."""
    left = sys.maxsize if count is None else count
    try:
        while left and (copied := os.copy_file_range(reading, writing, min(left, _PIECE))):
            left -= copied
    except OSError as error:
        if error.errno not in _UNCOPYABLE:
            raise
    while left and (data := os.read(reading, min(left, 1024 * 1024))):  # where the kernel cannot copy by itself
        write_all(writing, data)
        left -= len(data)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Writes all of `data`. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
