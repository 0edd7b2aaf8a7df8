"""New content for a file: it grows where nobody sees it, then takes the file's place at once.

A file that replaces another keeps its owner, mode and attributes. Where a replacement would lose something (hard
links, an owner that cannot be given, a mount point) the content is complete first and is then copied into the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from shoal_agent.files.move import copy_attributes, transfer, write_all
from shoal_agent.files.permissions import Change
from shoal_agent.files.tree import parents_made

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_PARKED = -2
_NOT_RENAMED = (errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES)


class Spool:
    """Bytes in a file without a name, made when the first come."""

    def __init__(self) -> None:
        self.descriptor = -1
        self.size = 0

    def write(self, data: bytes) -> None:
        """Adds `data` at the end. Raises OSError."""
        self.open()
        write_all(self.descriptor, data)
        self.size += len(data)

    def open(self) -> int:
        """The descriptor. Raises OSError."""
        if self.descriptor < 0:
            self.descriptor = _nameless()
        return self.descriptor

    def discard(self) -> None:
        """Frees it. May be called again."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _nameless() -> int:
    for folder in (os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):  # noqa: S108  # never under a known name
        if folder:
            try:
                return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
            except OSError:
                pass
            try:
                name = _hidden_name(folder)
                descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError:
                continue
            os.unlink(name)
            return descriptor
    return os.memfd_create("upload")  # a root file system that takes no files at all


class Staged:
    """The new content of the file at `path`, through links. Every method may raise OSError."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        existing = _status(self.path)
        if existing is not None and not (stat.S_ISREG(existing.st_mode) or stat.S_ISCHR(existing.st_mode)):
            number = errno.EISDIR if stat.S_ISDIR(existing.st_mode) else errno.EINVAL
            raise OSError(number, "it is a directory" if number == errno.EISDIR else "it is no regular file")
        self._folder = ""
        self._name: str | None = None  # of the content, if it has one
        self._spool: Spool | None = None
        self.descriptor = self._open(existing)

    def _open(self, existing: os.stat_result | None) -> int:
        if existing is None or stat.S_ISREG(existing.st_mode):
            try:
                return self._beside()
            except OSError as error:
                if existing is None or error.errno not in _DENIED:
                    raise
        self._spool = Spool()  # the folder takes no new file; the file itself may be writable
        return self._spool.open()

    def _beside(self) -> int:
        """A file in the nearest folder that exists, so that it can be renamed to its place."""
        folder = os.path.dirname(self.path)
        while not os.path.isdir(folder):
            if os.path.lexists(folder):
                raise NotADirectoryError(errno.EINVAL, f"{folder} is not a directory")
            folder = os.path.dirname(folder)
        self._folder = folder
        if os.path.exists("/proc/self/fd"):
            try:
                return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o777)
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    raise
        name = _hidden_name(folder)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o777)
        self._name = name
        return descriptor

    def write(self, data: bytes) -> None:
        """Adds `data` at the end."""
        write_all(self.descriptor, data)

    def adopt(self, spool: Spool, start: int, length: int) -> None:
        """Adds a part of `spool`."""
        if length:
            os.lseek(spool.descriptor, start, os.SEEK_SET)
            transfer(spool.descriptor, self.descriptor, length)

    def park(self) -> None:
        """Closes the descriptor until `commit`, so that an upload of many files does not hold as many of them."""
        if self._spool is None:
            self._give_name(self._folder)
        if self._name is not None:
            os.close(self.descriptor)
            self.descriptor = _PARKED

    def commit(self, change: Change, parents: Change | None = None) -> None:
        """Puts the content in its place, then frees what is left. Missing folders are made as `parents` says."""
        try:
            if self.descriptor == _PARKED and self._name is not None:
                self.descriptor = os.open(self._name, os.O_RDWR | os.O_NOFOLLOW)
            with parents_made(self.path, parents or Change()):
                self._take_place(change)
        finally:
            self.discard()

    def _take_place(self, change: Change) -> None:
        existing = _status(self.path)
        if self._spool is None and existing is None:
            change.apply(self.descriptor)
            self._publish()
        elif self._spool is not None or existing is None or not self._replace(existing, change):
            self._overwrite(change)

    def _publish(self) -> None:
        """A new file appears, with all its content."""
        if self._name is None:
            try:
                self._link(self.path)
            except OSError:  # somebody else was faster, or it cannot be linked
                self._rename_over()
        else:
            self._rename_over()

    def _rename_over(self) -> None:
        self._give_name(os.path.dirname(self.path))
        os.rename(self._name or "", self.path)
        self._name = None

    def _give_name(self, folder: str) -> None:
        """A hidden name for content that has none, by a copy where it cannot be linked."""
        if self._name is not None:
            return
        name = _hidden_name(folder)
        try:
            self._link(name)
        except OSError:
            self._copy_to(name)
        self._name = name

    def _copy_to(self, name: str) -> None:
        status = os.fstat(self.descriptor)
        copy = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            transfer(self.descriptor, copy)
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(copy, status.st_uid, status.st_gid)
            os.fchmod(copy, stat.S_IMODE(status.st_mode))
        except OSError:
            os.close(copy)
            os.unlink(name)
            raise
        os.close(self.descriptor)
        self.descriptor = copy

    def _link(self, name: str) -> None:
        # The descriptor of a folder that does not matter makes the call linkat, which follows the link in /proc.
        os.link(f"/proc/self/fd/{self.descriptor}", name, src_dir_fd=self.descriptor, follow_symlinks=True)

    def _replace(self, existing: os.stat_result, change: Change) -> bool:
        """Takes the place of `existing`. Returns False where something of it would be lost."""
        if not stat.S_ISREG(existing.st_mode) or existing.st_nlink != 1:
            return False
        if not os.access(self.path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        own = os.fstat(self.descriptor)
        try:
            if (own.st_uid, own.st_gid) != (existing.st_uid, existing.st_gid):
                os.fchown(self.descriptor, existing.st_uid, existing.st_gid)
            os.fchmod(self.descriptor, stat.S_IMODE(existing.st_mode))
        except PermissionError:
            return False
        if not copy_attributes(self.path, self.descriptor):
            return False
        change.apply(self.descriptor)
        try:
            self._rename_over()
        except OSError as error:
            if error.errno not in _NOT_RENAMED:
                raise
            return False
        return True

    def _overwrite(self, change: Change) -> None:
        """Writes into the file itself, once there is room for all of it."""
        target = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        try:
            size, old = os.fstat(self.descriptor).st_size, os.fstat(target)
            if stat.S_ISREG(old.st_mode):
                _reserve(target, size, old.st_size)
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            transfer(self.descriptor, target)
            if stat.S_ISREG(old.st_mode):
                os.ftruncate(target, size)
            change.apply(target)
        finally:
            os.close(target)

    def discard(self) -> None:
        """Frees the content that has not taken its place. May be called again."""
        if self._spool is not None:
            self._spool.discard()
        elif self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1
        if self._name is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name)
            self._name = None


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _reserve(target: int, size: int, old_size: int) -> None:
    """Gives a file room for `size` bytes, or leaves it as it was. Raises OSError."""
    if size > old_size:
        try:
            os.posix_fallocate(target, old_size, size - old_size)
        except OSError:
            os.ftruncate(target, old_size)
            raise


def _hidden_name(folder: str) -> str:
    return f"{folder.rstrip('/')}/.upload-{os.urandom(8).hex()}"
