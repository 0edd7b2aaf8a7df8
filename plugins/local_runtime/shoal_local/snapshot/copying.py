"""Running the copier; see `shoal_local.snapshot.copier`. Everything here blocks.

It is a program of its own, since copying many files in this process would hold up the event loop, and since an ordinary
user's copier needs a user namespace.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from shoal.errors import EngineFailure

CODE: Final = "LOCAL::SNAPSHOT_FAILED"
PROGRAM: Final = Path(__file__).with_name("copier.py")
GONE: Final = ".gone"
"""In a target: what was replaced there."""
COPY_SECONDS: Final = 900.0
"""How long one copy may take."""
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Problem(Struct):
    number: int | None
    text: str
    path: str


class CopyJob(Struct, frozen=True):
    """What is copied.

    Attributes:
        parts: the names of the directories.
        link: make links to the files; for sources that never change.
        skip: for each part, names in it that are left out.
        below: for each part that is a layer of an overlay, the directory of the image that it lies over.
    """

    parts: Sequence[str]
    link: bool = False
    skip: Mapping[str, Sequence[str]] = {}
    below: Mapping[str, str] = {}


def copy(source: int, target: Path, job: CopyJob) -> None:
    """Copy directories of an open directory into ``target``, over what is there.

    Raises EngineFailure: the disk is full, a file cannot be read, or it takes too long.
    """
    into = os.open(target, _FOLDER)
    text = msgspec.json.encode({**asdict(job), "source": source, "target": into, "parent": os.getpid()})
    words = [sys.executable, "-I", "-S", str(PROGRAM), text.decode()]
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and every word is this server's
            words, pass_fds=(source, into), capture_output=True, env={}, check=False, timeout=COPY_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise EngineFailure(CODE, f"the sandbox's files cannot be copied within {COPY_SECONDS:.0f} seconds") from None
    finally:
        os.close(into)
    if done.returncode != 0:
        raise _failure(done.stderr)


def copy_folder(source: Path, target: Path, job: CopyJob) -> None:
    """The same, of a directory that is not open."""
    handle = os.open(source, _FOLDER)
    try:
        copy(handle, target, job)
    finally:
        os.close(handle)


def full() -> EngineFailure:
    """What is raised where there is no room."""
    return EngineFailure(CODE, "no space is left on the disk of local.state_dir")


def _failure(said: bytes) -> EngineFailure:
    try:
        problem = msgspec.json.decode(said, type=_Problem)
    except msgspec.MsgspecError:
        last = said.decode(errors="replace").strip().rpartition("\n")[2]
        return EngineFailure(CODE, f"the sandbox's files cannot be copied: {last or 'the copier was ended'}")
    if problem.number in (errno.ENOSPC, errno.EDQUOT):
        return full()
    if problem.number in (errno.EMFILE, errno.ENFILE):
        return EngineFailure(CODE, "the sandbox's directories are nested too deeply to be copied")
    return EngineFailure(CODE, f"the sandbox's file {problem.path} cannot be copied: {problem.text}")
