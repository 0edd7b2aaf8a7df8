"""Makes sockets inside other network namespaces, for a server that must not enter them itself.

Run as a program, on the standard library alone: ``python -I -S broker.py FD``. ``FD`` is one end of a pair of
SOCK_SEQPACKET sockets. A request is one message with the descriptor of a network namespace:

- ``sockets FAMILY COUNT``: answered with ``ok`` and as many TCP sockets;
- ``up``: ``ok`` once the loopback interface is up and every port may be bound;
- ``filter ALLOWED DENIED``, networks with commas between: ``ok`` once nothing gets out to the denied ones.

Anything else that is answered is the text of an error. It ends when the server does.

A process can't come back from another user namespace, so an ordinary user's broker makes a child for each request. The
superuser's needs no user namespace. A process that enters a user namespace must have one thread; hence a program.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import sys
from types import ModuleType
from typing import cast

NS_GET_USERNS = 0xB701
"""ioctl_ns(2)."""
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
"""netdevice(7)."""
SETTINGS = {"ip_unprivileged_port_start": "0", "ping_group_range": "0 2147483647", "ip_local_reserved_ports": "44772"}
"""Of /proc/sys/net/ipv4. Root in a sandbox has no privileges over its network; the agent's port is kept for it."""
MAX_SOCKETS = 16
MAX_REQUEST = 65536

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """Go into a network namespace, and if need be first into the user namespace that owns it. Raises OSError."""
    if os.geteuid() != 0:
        owner = fcntl.ioctl(namespace, NS_GET_USERNS)
        _setns(owner, CLONE_NEWUSER)
        os.close(owner)
    _setns(namespace, CLONE_NEWNET)


def set_up() -> None:
    """Bring the loopback interface up. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    for name, value in SETTINGS.items():
        try:
            with open(f"/proc/sys/net/ipv4/{name}", "w") as file:  # noqa: PTH123 - pathlib takes long to import
                file.write(value)
        except OSError:  # read-only in some containers: ports below 1024 are refused then
            continue


def filter_program() -> ModuleType:
    """The module beside this one; a program that runs by itself has no packages."""
    sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]  # noqa: PTH100, PTH120 - as above
    try:
        import filter as found  # type: ignore[import-not-found]
    finally:
        del sys.path[0]
    return cast("ModuleType", found)


def answer(channel: socket.socket, request: str, namespace: int) -> None:
    """Do what is asked, and say so."""
    word, *arguments = request.split()
    made: list[socket.socket] = []
    try:
        enter(namespace)
        if word == "up":
            set_up()
        elif word == "filter":
            filter_program().install(arguments[0].split(","), arguments[1].split(","))
        elif word == "sockets":
            family, count = int(arguments[0]), min(int(arguments[1]), MAX_SOCKETS)
            made = [socket.socket(family, socket.SOCK_STREAM) for _ in range(count)]
        else:
            raise ValueError(f"unknown request: {word}")
        reply = b"ok"
    except (OSError, ValueError, IndexError) as error:
        reply = str(error).encode()[:200]
        made = []
    descriptors = array.array("i", [each.fileno() for each in made])
    channel.sendmsg([reply], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if made else [])
    for each in made:
        each.close()


def serve(channel: socket.socket) -> None:
    """Answer requests, one after another, until the other end is closed."""
    while True:
        data, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST, 1)
        if not data:
            return
        for namespace in descriptors:
            if os.geteuid() == 0:
                answer(channel, data.decode(), namespace)
            else:
                _answer_in_child(channel, data.decode(), namespace)
            os.close(namespace)


def _answer_in_child(channel: socket.socket, request: str, namespace: int) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            answer(channel, request, namespace)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        channel.send(b"the broker's child ended")


def _setns(handle: int, kind: int) -> None:
    if _libc.setns(handle, kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, KeyboardInterrupt):
        os.set_inheritable(int(sys.argv[1]), False)
        serve(socket.socket(fileno=int(sys.argv[1])))
