"""A process that serves files with the credentials of an account."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import signal
import socket
from typing import NamedTuple

from shoal_agent.accounts import Accounts
from shoal_agent.files.routes import Files
from shoal_agent.files.threads import Threads
from shoal_agent.http.app import App
from shoal_agent.http.connection import Connection
from shoal_agent.http.routes import Routes
from shoal_agent.http.server import Server
from shoal_agent.log import LOG
from shoal_agent.paths import Paths

THREADS = 4
READY = b"ready"
DRAIN_SECONDS = 24 * 3600.0
"""How long requests go on after the agent has done with the worker."""


class Credentials(NamedTuple):
    """Whom a worker acts as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str | None

    def take(self) -> None:
        """Raises OSError where this process may not. An agent that has these credentials needs no privilege."""
        own = (self.uid, self.gid) == (os.geteuid(), os.getegid())
        try:
            os.setgroups(self.groups)
        except PermissionError:
            if not own:
                raise
        if not own:
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        os.chdir("/")


def start(credentials: Credentials) -> tuple[int, socket.socket]:
    """Forks a worker. Returns its pid and the socket that brings connections to it; it ends when that is closed.

    It is no new program: an agent that was forked into its sandbox has no program file there. Since it leaves the
    credentials of its parent behind, the kernel lets nobody look into its memory. Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        _become(credentials, theirs)
        asyncio.run(_serve(theirs, credentials))
        status = 0
    except OSError as error:
        with contextlib.suppress(OSError):
            theirs.send(f"{error.errno} {error.strerror}".encode("utf-8", "replace")[:1000])
    finally:
        os._exit(status)


def _become(credentials: Credentials, control: socket.socket) -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    LOG.stop()
    kept = control.fileno()
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    credentials.take()


async def _serve(control: socket.socket, credentials: Credentials) -> None:
    """Serves the connections that come over `control`, until it is closed."""
    routes = Routes()
    Files(Paths(None, credentials.home, "/"), Accounts(), Threads(THREADS)).add_to(routes)
    app = App(routes, [])
    server = Server(app)
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    accepted: set[asyncio.Task[object]] = set()

    def take() -> None:
        received = _receive(control)
        if received is None:
            loop.remove_reader(control)
            over.set()
            return
        task = loop.create_task(loop.connect_accepted_socket(lambda: Connection(app, server), received))
        accepted.add(task)
        task.add_done_callback(accepted.discard)

    control.send(READY)
    control.setblocking(False)
    loop.add_reader(control, take)
    await over.wait()
    await server.stop(DRAIN_SECONDS)


def _receive(control: socket.socket) -> socket.socket | None:
    """The next connection; None at the end."""
    _, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4))
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = socket.socket(fileno=array.array("i", payload)[0])
            received.setblocking(False)
            return received
    return None


def connect(control: socket.socket) -> socket.socket:
    """A new connection to the worker at the other end. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))]
        control.sendmsg([b"c"], rights)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours
