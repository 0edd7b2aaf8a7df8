"""Asking the broker; see `shoal_local.network.broker`. Every call may block for a few milliseconds."""

from __future__ import annotations

import array
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from shoal.errors import EngineFailure
from shoal_local.run.process import end_child

log: Final = structlog.get_logger("shoal.local")

CODE: Final = "LOCAL::NETWORK_FAILED"
PROGRAM: Final = Path(__file__).with_name("broker.py")
ANSWER_SECONDS: Final = 10.0
_MAX_SOCKETS: Final = 16


class Broker:
    """Started with the first request, and again if it has gone. May be used from any thread; `close` ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._pid = 0

    def set_up(self, namespace: int) -> None:
        """Bring up the loopback interface of a network namespace, all ports free to bind. Raises EngineFailure."""
        self._ask("up", namespace)

    def restrict(self, namespace: int, allowed: Sequence[str], denied: Sequence[str]) -> None:
        """Let nothing out of it to the networks ``denied``, save to those ``allowed``. Raises EngineFailure."""
        self._ask(f"filter {','.join(allowed)} {','.join(denied)}", namespace)

    def sockets(self, namespace: int, family: socket.AddressFamily, count: int) -> list[socket.socket]:
        """TCP sockets of that network namespace, neither bound nor connected. Raises EngineFailure."""
        found = [socket.socket(fileno=handle) for handle in self._ask(f"sockets {int(family)} {count}", namespace)]
        for each in found:
            each.setblocking(False)
        return found

    def close(self) -> None:
        """End the broker; the next request starts another."""
        with self._lock:
            self._end()

    def _ask(self, request: str, *descriptors: int) -> list[int]:
        with self._lock:
            for last in (False, True):
                channel = self._channel or self._start()
                try:
                    socket.send_fds(channel, [request.encode()], descriptors)
                    data, handles = _received(channel)
                except OSError as error:
                    data, handles = b"", []
                    log.warning("the broker of network namespaces fails", error=str(error))
                if data == b"ok":
                    return handles
                if data:
                    break
                self._end()  # it was killed: one more try, with another one
                if last:
                    break
        text = data.decode(errors="replace") or "the broker of network namespaces has gone"
        raise EngineFailure(CODE, f"the sandbox cannot be entered: {text}")

    def _start(self) -> socket.socket:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.settimeout(ANSWER_SECONDS)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            # -I -S: nothing of the environment or of site-packages, so it starts in a few milliseconds.
            words = [sys.executable, "-I", "-S", str(PROGRAM), "3"]
            self._pid = os.posix_spawn(
                sys.executable,
                words,
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            )
        self._channel = mine
        return mine

    def _end(self) -> None:
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        end_child(self._pid)


def _received(channel: socket.socket) -> tuple[bytes, list[int]]:
    """An answer, and the descriptors with it. No program that another thread starts just then inherits them.

    `socket.recv_fds` does not pass its flags on (Python 3.11).
    """
    found = array.array("i")
    data, extra, _, _ = channel.recvmsg(256, socket.CMSG_SPACE(_MAX_SOCKETS * found.itemsize), socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return data, found.tolist()
