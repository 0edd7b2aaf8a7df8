"""Starts the first process of each sandbox in its control group, for a server that has many threads.

Run as a program, on the standard library alone: ``python -I -S launcher.py FD KEYCTL``. ``FD`` is one end of a pair of
SOCK_SEQPACKET sockets, ``KEYCTL`` the number of that system call or 0. A request is a message of JSON with ``argv``,
``env`` and ``group``, and descriptors: three that become the process's own first ones, the directory of the group if
``group`` is true, and namespaces that it enters in this order. It is answered with the pid, or with the text of an
error. The process is a child of the server. Before the first request the launcher says ``ready``. It ends when the
server does; what it started does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import sys
from types import ModuleType
from typing import Any, cast

MAX_REQUEST = 65536
MAX_DESCRIPTORS = 6
FAILED = 127
MANY = 1 << 20
"""More descriptors than a process may have."""
JOIN_SESSION_KEYRING = 1
DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
"""What Python and a server change; a program is started with it as it was."""


def birth() -> ModuleType:
    """The module of that name; a program that runs by itself has no packages."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes long to import
    sys.path[:0] = [os.path.join(os.path.dirname(here), "limit")]  # noqa: PTH118, PTH120 - as above
    try:
        import birth as found  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    return cast("ModuleType", found)


def own_keyring(keyctl: int) -> bool:
    """Get a new, empty session keyring; returns whether it is one's own, or the kernel has none at all."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = int(libc.syscall(ctypes.c_long(keyctl), ctypes.c_long(JOIN_SESSION_KEYRING), None)) >= 0
    return done or ctypes.get_errno() == errno.ENOSYS


def enter(namespace: int) -> None:
    """Go into a namespace, whatever its kind. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def become(request: dict[str, Any], streams: list[int], namespaces: list[int], keyctl: int) -> None:
    """The child's part: turn into the program. Does not return; what is wrong goes to the third stream."""
    try:
        os.setsid()
        for number in DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        if keyctl:
            own_keyring(keyctl)  # where this user may have no more of them, it keeps the launcher's
        for place, stream in enumerate(streams):
            os.dup2(stream, place)
        for namespace in namespaces:
            enter(namespace)
        os.execve(request["argv"][0], request["argv"], request["env"])  # noqa: S606 - no shell is there
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(2, str(error).encode(errors="replace"))
    finally:
        os._exit(FAILED)


def serve(channel: socket.socket, keyctl: int) -> None:
    """Answer requests, one after another, until the other end is closed."""
    fork_into = birth().fork_into
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST, MAX_DESCRIPTORS)
        if not data:
            return
        try:
            for each in descriptors:
                os.set_inheritable(each, False)
            request = json.loads(data)
            streams, rest = descriptors[:3], descriptors[3:]
            group = rest.pop(0) if request["group"] else None
            pid = fork_into(group, sibling=True)
            if pid == 0:
                become(request, streams, rest, keyctl)
            reply = str(pid).encode()
        except (OSError, ValueError, KeyError, IndexError) as error:
            reply = str(error).encode()
        for each in descriptors:
            os.close(each)
        channel.send(reply)


def main(arguments: list[str]) -> int:
    """Arguments as above. Returns the exit status: 1 if what it starts would have the server's keyring."""
    channel, keyctl = socket.socket(fileno=int(arguments[0])), int(arguments[1])
    channel.set_inheritable(False)
    os.closerange(channel.fileno() + 1, MANY)
    if keyctl and not own_keyring(keyctl):
        return 1
    channel.send(b"ready")
    serve(channel, keyctl)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
