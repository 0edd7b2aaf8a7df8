"""The server's side of `shoal_local.agent.parent`. Every call may block for some milliseconds."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from shoal.errors import EngineFailure
from shoal.plugin.interfaces import ForkedAgent
from shoal_local.limit.cgroups import born_into
from shoal_local.run.process import end_child

CODE: Final = "LOCAL::AGENT_FAILED"
PROGRAM: Final = Path(__file__).with_name("parent.py")
ANSWER_SECONDS: Final = 30.0
_EXECUTING: Final = ForkedAgent((sys.executable, "-I", "-S"), "-")
"""Nothing of the environment or of site-packages, so it starts in a few milliseconds."""
_ROOM: Final = 512
"""Bytes for the title of an agent."""
_GO: Final = b"go"
_MFD_EXEC: Final = 0x10
_OUT_OF_THE_WAY: Final = 10
"""Descriptors from here on are none that a program is started with."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Job(Struct, frozen=True):
    """An agent to be started.

    Attributes:
        argv: what is executed, or what a forked agent shows as its arguments.
        label: what it shows as its variables, by which `shoal_local.run.reaper` finds it.
        folder: where the agent's files lie in the sandbox.
        groups: files by which it joins the sandbox's control groups; one that it can be born in comes first.
        network: the sandbox has a network namespace of its own.
        privileged: it keeps the capabilities of root in the sandbox's user namespace.
        keyctl: the number of that system call, to get a session keyring of its own; 0 = it gets none.
        size: of its variables, in bytes.
    """

    argv: list[str]
    label: str
    folder: str
    cwd: str
    groups: list[str]
    network: bool
    privileged: bool
    keyctl: int
    size: int


class ParentGone(EngineFailure):
    """The parent ended before it started an agent."""


class Parent:
    """Starts agents. A process is started with the first need, and again if it has gone. May be used from any thread.

    Without ``forked`` agents are executed.
    """

    def __init__(self, forked: ForkedAgent | None = None) -> None:
        self._forked = forked or _EXECUTING
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._pid = 0

    def warm(self) -> None:
        """Start the process, if there is none. Raises EngineFailure."""
        with self._lock:
            self._ready()

    def run(self, job: Job, variables: bytes, pidfd: int, program: Path | None) -> None:
        """Start an agent in the namespaces of a process, and return once it listens, or has been executed.

        ``program`` is the file of the filter of system calls. Raises EngineFailure.
        """
        with _opened(pidfd, program) as handles:
            try:
                self._run(job, variables, handles)
            except ParentGone:
                self._run(job, variables, handles)  # it was killed: once more, with another one

    def close(self) -> None:
        """End the process; agents go on."""
        with self._lock:
            self._end()

    def _run(self, job: Job, variables: bytes, handles: list[int]) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        mine.settimeout(ANSWER_SECONDS)
        with mine:
            with theirs, _directory(born_into([Path(file) for file in job.groups])) as group:
                self._hand_over([theirs.fileno(), *group])
            try:
                socket.send_fds(mine, [msgspec.json.encode(job) + b"\n"], handles)
                mine.sendall(variables)
                mine.shutdown(socket.SHUT_WR)
                said = _answer(mine)
            except TimeoutError:
                raise EngineFailure(CODE, "the agent does not start: the sandbox may be paused") from None
            except OSError:
                said = b""
        if said == _GO:
            return
        text = said.removeprefix(_GO).decode(errors="replace")
        if text:
            raise EngineFailure(CODE, f"the agent does not start: {text}")
        raise ParentGone(CODE, "the agent does not start: what was to start it has ended")

    def _hand_over(self, handles: list[int]) -> None:
        with self._lock:
            for last in (False, True):
                channel = self._ready()
                try:
                    socket.send_fds(channel, [b"job"], handles)
                except OSError as error:
                    self._end()
                    if last:
                        raise ParentGone(CODE, f"the agent does not start: {error}") from None
                else:
                    return

    def _ready(self) -> socket.socket:
        if self._channel is None:
            try:
                self._channel = self._start()
            except OSError as error:
                raise EngineFailure(CODE, f"the agent's interpreter does not start: {error}") from None
        return self._channel

    def _start(self) -> socket.socket:
        words = [*self._forked.interpreter, str(PROGRAM), "3", self._forked.module, "-" * _ROOM]
        with ExitStack() as opened:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, null)
            program = words[0]
            if self._forked is not _EXECUTING:
                handle = _sealed(Path(program))
                opened.callback(os.close, handle)
                program = f"/proc/self/fd/{handle}"
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            opened.callback(theirs.close)
            try:
                self._pid = _spawned(program, words, null, theirs.fileno())
            except BaseException:
                mine.close()
                raise
        mine.settimeout(ANSWER_SECONDS)
        return mine

    def _end(self) -> None:
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        end_child(self._pid)


def _spawned(program: str, words: list[str], null: int, channel: int) -> int:
    """The pid of a process with the channel as its descriptor 3."""
    return os.posix_spawn(
        program,
        words,
        {"ROOM": "-" * _ROOM},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null, 1),
            (os.POSIX_SPAWN_DUP2, channel, 3),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
    )


@contextmanager
def _opened(pidfd: int, program: Path | None) -> Iterator[list[int]]:
    """The descriptors that a job takes."""
    if program is None:
        yield [pidfd]
        return
    handle = os.open(program, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield [pidfd, handle]
    finally:
        os.close(handle)


@contextmanager
def _directory(group: Path | None) -> Iterator[list[int]]:
    """A descriptor of it, if there is one; one that has gone meanwhile is for the child to complain of."""
    handle = -1
    if group is not None:
        with suppress(OSError):
            handle = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield [handle] if handle >= 0 else []
    finally:
        if handle >= 0:
            os.close(handle)


def _answer(talk: socket.socket) -> bytes:
    said = b""
    while piece := talk.recv(4096):
        said += piece
    return said


def _sealed(program: Path) -> int:
    """A copy of it in memory that nobody can change.

    A forked agent's /proc/self/exe leads to what the parent executed. To this copy it may: the file on the disk is the
    server's, whose user an agent is too, on the outside, where the server is not root.
    """
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        handle = os.memfd_create("agent", flags | _MFD_EXEC)
    except OSError:  # before Linux 6.3
        handle = os.memfd_create("agent", flags)
    try:
        content = memoryview(program.read_bytes())
        while content:
            content = content[os.write(handle, content) :]
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        return fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
    finally:
        os.close(handle)
