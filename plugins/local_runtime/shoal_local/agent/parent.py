"""The parent of agents: forks a process for each sandbox, which enters it and becomes its agent.

Run as a program, on the standard library alone: ``parent.py CHANNEL MODULE ROOM``. ``CHANNEL`` is the descriptor of one
end of a pair of SOCK_SEQPACKET sockets. ``MODULE`` is that of `shoal.plugin.interfaces.ForkedAgent`, or ``-`` where
agents are executed. ``ROOM`` is of no meaning: agents write their title over it.

A message brings a socket, and perhaps the directory of a control group that the child is born in. The child reads the
job from the socket: nothing of one sandbox is ever in the memory that the next one's agent inherits. The job is a line
of JSON, with the pidfd of a process in the sandbox and, if there is one, the filter of system calls; then come the
agent's variables. The answer is ``go`` once the agent listens, or is about to be executed; anything else, or anything
after it, is the text of an error. The parent ends when the server does, agents do not.

Parent and agents are not dumpable. They were executed outside of any sandbox, so nobody in one may look into them,
trace them, or reach files of the machine through what /proc shows of them (ptrace(2), "Ptrace access mode checking").
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 15, 22, 24, 38
SECCOMP_MODE_FILTER = 2
CLONE_NEWNET = 0x40000000
ALL_NAMESPACES = 0x3C020000
"""Mount, UTS, IPC, user and process namespaces."""
CAPABILITIES_VERSION = 0x20080522
JOIN_SESSION_KEYRING = 1
MAX_MESSAGE = 16
MAX_TEXT = 400
GO = b"go"
_STAT_AREAS = 45
"""Of /proc/self/stat: where, behind the name, the bounds of the arguments and of the variables stand."""

_libc = ctypes.CDLL(None, use_errno=True)


class Areas:
    """The memory that /proc shows as a process's arguments and variables; its children have it at the same place."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 - pathlib takes long to import
            words = file.read().rpartition(b")")[2].split()[_STAT_AREAS : _STAT_AREAS + 4]
        start, end, first, last = (int(word) for word in words)
        self._arguments, self._variables = (start, end), (first, last)

    def show(self, arguments: list[str], variable: str) -> None:
        """Put these there, as far as there is room."""
        _fill(self._arguments, b"".join(os.fsencode(word) + b"\0" for word in arguments))
        _fill(self._variables, os.fsencode(variable) + b"\0")


def _fill(area: tuple[int, int], data: bytes) -> None:
    size = max(0, area[1] - area[0])
    ctypes.memmove(area[0], data[: max(0, size - 1)].ljust(size, b"\0"), size)


def message(talk: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """What arrives, and the descriptors with it, none of which is inherited by a program."""
    data, descriptors, _, _ = socket.recv_fds(talk, size, count)
    for each in descriptors:
        os.set_inheritable(each, False)
    return data, descriptors


def receive(talk: socket.socket) -> tuple[dict[str, Any], dict[str, str], list[int]]:
    """The job, the agent's variables, and the descriptors. Raises ValueError if it was cut off."""
    data, descriptors = message(talk, 65536, 2)
    while piece := talk.recv(65536):
        data += piece
    head, _, variables = data.partition(b"\n")
    job: dict[str, Any] = json.loads(head)
    if len(variables) != job["size"] or not descriptors:
        raise ValueError("the request was cut off")
    pairs = (os.fsdecode(pair).partition("=") for pair in variables.split(b"\0"))
    return job, {name: value for name, mark, value in pairs if name and mark}, descriptors


def birth() -> ModuleType:
    """The module of that name; a program that runs by itself has no packages."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes long to import
    sys.path[:0] = [os.path.join(os.path.dirname(here), "limit")]  # noqa: PTH118, PTH120 - as above
    try:
        import birth as found  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    return cast("ModuleType", found)


def enter(job: dict[str, Any], descriptors: list[int], *, born: bool) -> None:
    """Join control groups and namespaces; returns in a child that is in the process namespace, under the filter.

    ``born``: this process is in the job's first group already. Nothing of the child can be seen from inside before it
    is shut. Raises OSError.
    """
    for group in job["groups"][born:]:
        with open(group, "w") as file:  # noqa: PTH123 - as above
            file.write("0")
    superuser = os.geteuid() == 0
    if superuser:
        os.setgroups([])
    if job["keyctl"]:
        _libc.syscall(ctypes.c_long(job["keyctl"]), ctypes.c_long(JOIN_SESSION_KEYRING), None)
    _done(_libc.setns(descriptors[0], ALL_NAMESPACES | (CLONE_NEWNET if job["network"] else 0)), "setns")
    if superuser:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    hide()  # another user or namespace may have undone it
    _leave_behind()
    os.setsid()
    program = os.pread(descriptors[1], 65536, 0) if len(descriptors) > 1 else b""
    for each in descriptors:
        os.close(each)
    shut(program, privileged=job["privileged"])
    os.chdir(job["cwd"])
    null = os.open("/dev/null", os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.close(null)


def _leave_behind() -> None:
    """Fork into the process namespace, and there once more: returns in a child of the sandbox's first process.

    That one reaps it. A child of a process on the outside would wait for the machine's process 1 when it ends, and the
    whole sandbox with it, although that one may be in no hurry, or may be the server.
    """
    if os.fork() != 0:
        with contextlib.suppress(ChildProcessError):
            os.wait()
        os._exit(0)
    if os.fork() != 0:
        os._exit(0)


def shut(program: bytes, *, privileged: bool) -> None:
    """Give up what the sandbox's own command does not have, too. ``program`` is the filter of system calls."""
    if not privileged:
        for capability in range(64):
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        header, none = struct.pack("=Ii", CAPABILITIES_VERSION, 0), bytes(24)
        _done(_libc.capset(header, none), "capset")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _done(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if program:
        held = ctypes.create_string_buffer(program, len(program))
        filter_ = struct.pack("@HP", len(program) // 8, ctypes.addressof(held))
        _done(_libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter_, 0, 0), "seccomp")


def hide() -> None:
    """Let nobody but the machine's root look into this process."""
    _done(_libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def _done(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def become(talk: socket.socket, module: ModuleType | None, areas: Areas, *, born: bool) -> int:
    """Do one job, in a process of its own; returns the agent's exit status."""
    job, variables, descriptors = receive(talk)
    enter(job, descriptors, born=born)
    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        if module is None or number == signal.SIGCHLD:
            signal.signal(number, signal.SIG_DFL)
    if module is None:
        talk.send(GO)
        os.execve(job["argv"][0], job["argv"], variables)  # noqa: S606 - no shell is there
    areas.show(job["argv"], job["label"])
    _libc.prctl(PR_SET_NAME, b"execd", 0, 0, 0)
    gc.enable()

    def listening() -> None:
        talk.send(GO)
        talk.close()

    status: int = module.serve(variables, job["folder"], listening)
    return status


def child(talk: socket.socket, module: ModuleType | None, areas: Areas, *, born: bool) -> None:
    """The whole life of a forked process; does not return."""
    status = 1
    try:
        status = become(talk, module, areas, born=born)
    except BaseException as error:
        with contextlib.suppress(OSError):  # it was closed: the agent had been told to be well
            talk.send((str(error) or type(error).__name__).encode(errors="replace")[:MAX_TEXT])
    finally:
        os._exit(status)


def serve(channel: socket.socket, module: ModuleType | None, areas: Areas, fork_into: Callable[[int], int]) -> None:
    """Fork for each message until the other end is closed."""
    while True:
        data, descriptors = message(channel, MAX_MESSAGE, 2)
        if not data:
            return
        try:
            pid, born = fork(fork_into, descriptors[1:])
            if pid == 0:
                channel.close()
                for each in descriptors[1:]:
                    os.close(each)
                child(socket.socket(fileno=descriptors[0]), module, areas, born=born)
        except OSError as error:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptors[0])) as talk:
                talk.send(str(error).encode()[:MAX_TEXT])
        for each in descriptors:
            os.close(each)


def fork(fork_into: Callable[[int], int], groups: list[int]) -> tuple[int, bool]:
    """Like `os.fork`, and whether the child is in the group whose directory this is. Raises OSError."""
    for group in groups:
        with contextlib.suppress(OSError):  # a kernel or a container that does not permit it: the child moves itself
            return fork_into(group), True
    return os.fork(), False


def main(arguments: list[str]) -> None:
    """Arguments as above."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    hide()
    module = None
    if arguments[1] != "-":
        module = importlib.import_module(arguments[1])
        module.prepare()
    areas, fork_into = Areas(), birth().fork_into
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are not waited for
    gc.collect()
    gc.disable()
    gc.freeze()  # a collection would write into every page that agents share
    serve(channel, module, areas, fork_into)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        main(sys.argv[1:])
