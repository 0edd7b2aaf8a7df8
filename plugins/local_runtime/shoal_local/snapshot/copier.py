"""Copies what a sandbox wrote: one directory onto another, owners, modes, times, links, holes and attributes kept.

Run as a program, on the standard library alone: ``python -I -S copier.py JOB``. The job is JSON: ``source`` and
``target`` are descriptors of directories, ``parts`` the names in the source that are copied, ``link`` says that files
are linked and not copied, ``skip`` is, for each part, the names in it that are left out, ``below`` the directory of the
image that it lies over, and ``parent`` is the server's pid. It ends with 0, or with one line of JSON on stderr.

What is in the target already lies below what is copied, as one layer of overlayfs lies below another: a whiteout takes
the place of a file, an opaque directory that of a whole directory (overlayfs.rst). A whiteout that hides nothing of
the image is left out: overlayfs would show it. What is replaced is moved to ``.gone`` in the target, whatever its
depth. Sockets are left out: nobody listens on a copy.

An ordinary user's copier makes a user namespace, in which it may read and keep files that their owner closed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import stat
import sys
from typing import Any

FICLONE = 0x40049409
"""ioctl_ficlone(2)."""
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
SIGKILL = 9
GONE = ".gone"
CHUNK = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
UNABLE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY, errno.ETXTBSY, errno.EBADF)
OWN = ("origin", "nlink", "upper", "uuid")
"""Attributes of overlayfs that say where a file was copied from; they hold in that place only."""
SUPERUSER = os.geteuid() == 0
OVERLAY = "trusted.overlay." if SUPERUSER else "user.overlay."
OPAQUE = f"{OVERLAY}opaque"

_libc = ctypes.CDLL(None, use_errno=True)


class Level:
    """A directory that is being copied.

    Attributes:
        fresh: the target was made for it, and is empty.
        opaque: it hides a file of the layers below.
        path: from the target of the whole job.
        below: the directory of the image that it is shown with; None if there is none.
    """

    def __init__(
        self, source: int, target: int, path: str, *, fresh: bool, opaque: bool = False, below: int | None = None
    ) -> None:
        self.source, self.target, self.path, self.below = source, target, path, below
        self.fresh, self.opaque = fresh, opaque
        self.names = os.listdir(source)

    def close(self) -> None:
        os.close(self.source)
        os.close(self.target)
        if self.below is not None:
            os.close(self.below)


class Copier:
    """One job."""

    def __init__(self, target: int, *, link: bool) -> None:
        self._target = target
        self._link = link
        self._first: dict[tuple[int, int], str] = {}
        self._gone = 0
        self.place = ""

    def part(self, source: int, name: str, skip: list[str], image: str | None) -> None:
        """Copy a directory of the source, and all below it."""
        opened = os.open(name, DIRECTORY, dir_fd=source)
        fresh = self._make_directory(self._target, name)
        lower = None if image is None else os.open(image, PASSAGE)
        top = Level(opened, os.open(name, DIRECTORY, dir_fd=self._target), name, fresh=fresh, below=lower)
        top.names = [entry for entry in top.names if entry not in skip]
        levels = [top]
        while levels:
            level = levels[-1]
            if level.names:
                entry = level.names.pop()
                self.place = f"{level.path}/{entry}"
                below = self._entry(level, entry)
                if below is not None:
                    levels.append(below)
                continue
            self.place = level.path
            self._attributes(level)
            levels.pop().close()

    def _entry(self, level: Level, name: str) -> Level | None:
        """Copy one entry; a directory is returned, to be filled."""
        found = os.stat(name, dir_fd=level.source, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return self._directory(level, name)
        if stat.S_ISSOCK(found.st_mode):
            return None
        if not level.fresh:
            self._set_aside(level, name)
        # What lies at the top of a part is always shown with something.
        if _is_whiteout(found) and not self._link and level.below is None and "/" in level.path:
            return None
        if not self._linked(level, name, found):
            self._file(level, name, found)
        return None

    def _directory(self, level: Level, name: str) -> Level:
        source = os.open(name, DIRECTORY, dir_fd=level.source)
        there = None if level.fresh else _status(name, level.target)
        hides = there is not None and not stat.S_ISDIR(there.st_mode)
        opaque = hides or _attribute(source, OPAQUE) == b"y"
        if there is not None and opaque:
            self._set_aside(level, name)
        fresh = self._make_directory(level.target, name)
        target = os.open(name, DIRECTORY, dir_fd=level.target)
        alone = opaque or _attribute(target, OPAQUE) == b"y"
        below = None if alone or level.below is None else _passage(name, level.below)
        return Level(source, target, f"{level.path}/{name}", fresh=fresh, opaque=hides, below=below)

    def _make_directory(self, folder: int, name: str) -> bool:
        """False if it is there already."""
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            return False
        return True

    def _set_aside(self, level: Level, name: str) -> None:
        if _status(name, level.target) is None:
            return
        self._make_directory(self._target, GONE)
        self._gone += 1
        os.rename(name, f"{GONE}/{self._gone}", src_dir_fd=level.target, dst_dir_fd=self._target)

    def _linked(self, level: Level, name: str, found: os.stat_result) -> bool:
        """Make it another name of the source's file, or of one that was copied before; False if it is to be copied."""
        if self._link:
            return _link(name, level.source, name, level.target)
        if found.st_nlink < 2:
            return False
        first = self._first.setdefault((found.st_dev, found.st_ino), self.place)
        return first != self.place and _link(first, self._target, name, level.target)

    def _file(self, level: Level, name: str, found: os.stat_result) -> None:
        if stat.S_ISREG(found.st_mode):
            self._regular(level, name)
            return
        if stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=level.target)
        target = f"/proc/self/fd/{level.target}/{name}"
        made = os.lstat(target)
        if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
            os.lchown(target, found.st_uid, found.st_gid)
        _copy_attributes(f"/proc/self/fd/{level.source}/{name}", target)
        if stat.S_ISFIFO(found.st_mode):
            os.chmod(target, stat.S_IMODE(found.st_mode))  # noqa: PTH101 - as below
        os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)

    def _regular(self, level: Level, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        source = os.open(name, flags, dir_fd=level.source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            target = os.open(name, flags, 0o600, dir_fd=level.target)
            try:
                found = os.fstat(source)
                _copy_content(source, target, found.st_size)
                _finish(source, target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _attributes(self, level: Level) -> None:
        """What comes last, as it may close the directory."""
        if not level.fresh:
            for name in _kept(level.target):
                if name != OPAQUE:
                    os.removexattr(level.target, name)
        _finish(level.source, level.target, os.fstat(level.source))
        if level.opaque:
            os.setxattr(level.target, OPAQUE, b"y")


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _passage(name: str, folder: int) -> int | None:
    try:
        return os.open(name, PASSAGE, dir_fd=folder)
    except OSError:
        return None  # no directory, or closed to the sandbox as well


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _link(old: str, source: int, new: str, target: int) -> bool:
    try:
        os.link(old, new, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENAMETOOLONG, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _finish(source: int, target: int, found: os.stat_result) -> None:
    made = os.fstat(target)
    if (made.st_uid, made.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(target, found.st_uid, found.st_gid)
    _copy_attributes(source, target)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _kept(file: int | str) -> list[str]:
    """The names of the attributes that are copied."""
    try:
        names = os.listxattr(file, follow_symlinks=False) if isinstance(file, str) else os.listxattr(file)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOENT):
            return []
        raise
    own = [f"{OVERLAY}{word}" for word in OWN]
    # What the machine's security modules attach follows from where a file lies.
    return [n for n in names if n not in own and (not n.startswith("security.") or n == "security.capability")]


def _copy_attributes(source: int | str, target: int | str) -> None:
    for name in _kept(source):
        if isinstance(source, str) or isinstance(target, str):
            os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
        else:
            os.setxattr(target, name, os.getxattr(source, name))


def _attribute(file: int, name: str) -> bytes | None:
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise


def _copy_content(source: int, target: int, size: int) -> None:
    """Share the content if the file system can; else copy it, holes left out."""
    if size == 0:
        return
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    else:
        return
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        _copy_range(source, target, at, end)
        at = end


def _copy_range(source: int, target: int, at: int, end: int) -> None:
    within = True
    while at < end:
        if within:
            try:
                done = os.copy_file_range(source, target, end - at, at, at)
            except OSError as error:
                if error.errno not in UNABLE:
                    raise
                within = False
                continue
        else:
            done = os.pwrite(target, os.pread(source, min(CHUNK, end - at), at), at)
        if done == 0:
            return  # it became shorter
        at += done


def become_owner() -> None:
    """Where this machine lets an ordinary user: the rights of root over that user's own files."""
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(CLONE_NEWUSER) != 0:
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib takes long to import
            file.write(text)


def main(job: dict[str, Any]) -> int:
    """Do the job; the exit code."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if not SUPERUSER:
        become_owner()
    _libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != job["parent"]:
        return 1
    copier = Copier(job["target"], link=job["link"])
    try:
        for name in job["parts"]:
            copier.part(job["source"], name, job["skip"].get(name, []), job["below"].get(name))
    except OSError as error:
        problem = {"number": error.errno, "text": os.strerror(error.errno or 0), "path": copier.place}
        sys.stderr.write(json.dumps(problem))
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0)
    sys.exit(main(json.loads(sys.argv[1])))
