"""Pins: open files, mounted where nobody else can change what a path means.

The engine takes a path and looks it up again when it starts a container. Between the check and that, a sandbox that may
write beside a directory can put a link in its place. So the directory that was checked is mounted, through its
descriptor, at ``/run/shoal-volumes/ENGINE/SANDBOX/…``, which is root's alone, and the engine is given that path.

A pin outlives this server, so that the engine can start the container again, and goes with its sandbox. Which there are
is read from the directory; a crash between mount and create leaves nothing that is not found again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
from msgspec import Struct

from shoal.kit.walk import identity, is_directory
from shoal_docker.engine import Engine
from shoal_docker.volumes import mounts, paths
from shoal_docker.volumes.found import engine_process

log = structlog.get_logger("shoal.docker")

TOP: Final = "/run/shoal-volumes"
ABANDONED_SECONDS: Final = 600.0
"""Age at which pins of a sandbox that nobody knows are removed: another server may just be making it."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")


class Placed(Struct, frozen=True):
    """A source as the engine gets it.

    Attributes:
        identity: ``device:inode`` of what was checked.
        stand_in: the same of what lies at the path for whoever does not see the mount; None without one.
    """

    identity: str
    stand_in: str | None = None


class Pins:
    """The pins of one engine's sandboxes. Everything blocks.

    Attributes:
        able: whether there can be any: this server is root and sees the same mounts as the engine.
    """

    def __init__(self, top: str = TOP) -> None:
        self._top = self._own = top
        self._stuck: set[str] = set()
        self.able = False

    def start(self, engine: Engine) -> str | None:
        """Prepare the directory; None, or why the engine is given paths as they are."""
        socket = os.path.realpath(engine.address.partition("://")[2] or engine.address)
        self._own = f"{self._top}/{hashlib.sha256(socket.encode()).hexdigest()[:12]}"
        problem = _problem(engine)
        if problem is None:
            try:
                self._prepare()
            except OSError as error:
                problem = f"nothing can be mounted below {self._top}: {error.strerror}"
        self.able = problem is None
        return problem

    def place(self, sandbox_id: str, handle: int) -> tuple[str, Placed]:
        """The path to give to the engine for an open file or directory. Raises OSError."""
        if not self.able:
            return paths.real(handle), Placed(identity(handle))
        folder = self._folder(sandbox_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / secrets.token_hex(4)
        stand_in = _make_like(handle, target)
        mounts.bind(f"/proc/self/fd/{handle}", str(target))
        return str(target), Placed(identity(handle), stand_in)

    def release(self, sandbox_id: str) -> None:
        """Remove a sandbox's pins, also those of a server that knew the engine by another socket. Raises OSError."""
        if _PLAIN.fullmatch(sandbox_id) is None:
            return
        for folder in Path(self._top).glob(f"*/{sandbox_id}"):
            for target in folder.iterdir():
                _remove(target)
            folder.rmdir()

    def sweep(self, wanted: Callable[[str], bool]) -> None:
        """Remove the pins of sandboxes that are not wanted, except new ones; what cannot be removed is logged once.

        Raises OSError where they cannot be listed.
        """
        if not self.able:
            return
        oldest = time.time() - ABANDONED_SECONDS
        for folder in Path(self._own).iterdir():
            if wanted(folder.name) or folder.stat().st_ctime > oldest or folder.name in self._stuck:
                continue
            try:
                self.release(folder.name)
                log.info("removed mounts whose sandbox is gone", sandbox_id=folder.name)
            except OSError as error:
                self._stuck.add(folder.name)
                log.warning("mounts of a former sandbox stay", sandbox_id=folder.name, problem=str(error))

    def _folder(self, sandbox_id: str) -> Path:
        if _PLAIN.fullmatch(sandbox_id) is None:
            raise OSError(0, "the sandbox's id cannot be a file name")
        return Path(self._own) / sandbox_id

    def _prepare(self) -> None:
        """The directory, a mount of its own: no other tree of mounts gets what is mounted below, nor a pin of ``/``."""
        Path(self._top).mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self._top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # a second mount by another server would cover its pins
            if os.fstat(handle).st_uid != 0:
                raise OSError(0, "it is not root's")
            os.fchmod(handle, 0o700)
            if self._top not in mounts.mount_points():
                mounts.bind(self._top, self._top)
                mounts.make_unbindable(self._top)
        finally:
            os.close(handle)
        Path(self._own).mkdir(mode=0o700, exist_ok=True)


def _problem(engine: Engine) -> str | None:
    process = None if engine.remote or engine.rootless else engine_process(engine.address)
    if process is None:
        return "the engine is on another machine, in a container, or an ordinary user's"
    if os.geteuid() != 0:
        return "this server is not root"
    if any("name=userns" in str(option) for option in engine.info.get("SecurityOptions") or []):
        return "the engine's containers have a user namespace"
    try:
        same = Path(f"/proc/{process}/ns/mnt").samefile("/proc/self/ns/mnt")
    except OSError:
        same = False
    return None if same else "the engine has a mount namespace of its own"


def _make_like(handle: int, target: Path) -> str:
    """An empty directory or file to mount at; its identity."""
    if is_directory(handle):
        target.mkdir(mode=0o700)
    else:
        target.touch(mode=0o600, exist_ok=False)
    status = target.stat()
    return f"{status.st_dev}:{status.st_ino}"


def _remove(target: Path) -> None:
    """Unmount, then remove the stand-in, with what an engine that did not see the mount let a sandbox write there."""
    with contextlib.suppress(OSError):  # until nothing is mounted there
        while True:
            mounts.make_private(str(target))
            mounts.detach(str(target))
    if any(paths.is_within(path, [str(target)]) for path in mounts.mount_points()):
        raise OSError(errno.EBUSY, "it is still mounted")
    if stat.S_ISDIR(target.lstat().st_mode):
        shutil.rmtree(target)
    else:
        target.unlink()
