"""The server's side of `shoal_local.run.launcher`. Every call may block for some milliseconds."""

from __future__ import annotations

import json
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
from shoal_local.run.command import CODE
from shoal_local.run.keyring import JOIN_CALL
from shoal_local.run.process import end_child

log: Final = structlog.get_logger("shoal.local")

PROGRAM: Final = Path(__file__).with_name("launcher.py")
READY: Final = b"ready"
ANSWER_SECONDS: Final = 10.0


class LauncherGone(EngineFailure):
    """The launcher ended before it said whether it had started anything; another try, after a look, may do."""

    def __init__(self) -> None:
        super().__init__(CODE, "cannot start: the launcher of sandboxes has ended", retry_after=1.0)


class Launcher:
    """Started with the first request, and again if it has gone. May be used from any thread; `close` ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._pid = 0
        self._useless = False

    def launch(
        self,
        argv: list[str],
        env: dict[str, str],
        streams: tuple[int, int, int],
        group: Path | None,
        namespaces: Sequence[int] = (),
    ) -> int | None:
        """Start a program in the control group (version 2) ``group`` and in ``namespaces``; returns its pid.

        It is a child of this process, and ``streams`` become its first descriptors. None if that does not work here: it
        runs nowhere then. Raises LauncherGone if it may run.
        """
        request = json.dumps({"argv": argv, "env": env, "group": group is not None}).encode()
        handles: list[int] = []
        try:
            if group is not None:
                handles.append(os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            with self._lock:
                said = self._ask(request, [*streams, *handles, *namespaces])
        except OSError as error:
            said = str(error).encode()
        finally:
            for handle in handles:
                os.close(handle)
        if said.isdigit():
            return int(said)
        log.debug("a process cannot be launched", error=said.decode(errors="replace"))
        return None

    def close(self) -> None:
        """End the program; what it started goes on."""
        with self._lock:
            self._end()

    def _ask(self, request: bytes, descriptors: list[int]) -> bytes:
        """The answer, or why nothing was started. Raises LauncherGone if that is not known."""
        channel = self._channel or self._start()
        if channel is None:
            return b"the launcher does not start"
        try:
            socket.send_fds(channel, [request], descriptors)
        except OSError as error:  # it was killed, or the request is too large
            self._end()
            return str(error).encode()
        said = _received(channel)
        if not said:
            self._end()
            raise LauncherGone
        return said

    def _start(self) -> socket.socket | None:
        """None if it cannot run on this machine, which is not tried again."""
        if self._useless:
            return None
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.settimeout(ANSWER_SECONDS)
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(PROGRAM), "3", str(JOIN_CALL or 0)],
                {},
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            )
        self._channel = mine
        if _received(mine) != READY:
            self._useless = True
            self._end()
        return self._channel

    def _end(self) -> None:
        if self._channel is None:
            return
        self._channel.close()
        self._channel = None
        end_child(self._pid)


def _received(channel: socket.socket) -> bytes:
    """One message; empty if the other end has gone, or says nothing."""
    try:
        return channel.recv(256)
    except OSError:
        return b""
