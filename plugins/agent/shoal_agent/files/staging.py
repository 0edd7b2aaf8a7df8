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
from shoal_agent.files.tree import make_parents

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
                name = _beside(f"{folder}/x")
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
        self._name = _beside(f"{folder}/x")
        return os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o777)

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
        if self._name is None and self._spool is None:
            name = _beside(f"{self._folder}/x")
            self._link(name)
            self._name = name
        if self._name is not None:
            os.close(self.descriptor)
            self.descriptor = _PARKED

    def commit(self, change: Change, parents: Change | None = None) -> None:
        """Puts the content in its place, then frees what is left. Missing folders are made as `parents` says."""
        try:
            if self.descriptor == _PARKED and self._name is not None:
                self.descriptor = os.open(self._name, os.O_RDWR | os.O_NOFOLLOW)
            make_parents(self.path, parents or Change())
            existing = _status(self.path)
            if self._spool is None and existing is None:
                change.apply(self.descriptor)
                self._publish()
            elif self._spool is not None or existing is None or not self._replace(existing, change):
                self._overwrite(change)
        finally:
            self.discard()

    def _publish(self) -> None:
        """A new file appears, with all its content."""
        if self._name is not None:
            os.rename(self._name, self.path)
            self._name = None
            return
        try:
            self._link(self.path)
        except FileExistsError:  # somebody else was faster
            self._name = _beside(self.path)
            self._link(self._name)
            self._publish()

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

    def _rename_over(self) -> None:
        if self._name is None:
            name = _beside(self.path)
            self._link(name)
            self._name = name
        os.rename(self._name, self.path)
        self._name = None

    def _overwrite(self, change: Change) -> None:
        target = os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK)
        try:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            transfer(self.descriptor, target)
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


def _beside(path: str) -> str:
    return f"{os.path.dirname(path).rstrip('/')}/.upload-{os.urandom(8).hex()}"
