"""Networks made in advance: a namespace with its packet filter, and pasta(1) connected to it. Everything here blocks.

pasta takes longer to start than the rest of a sandbox. So a few are kept in stock while sandboxes are being made; each
goes to one sandbox and is ended with it. A small shell made the namespace and waits on a pipe: when the server ends, by
whatever, it ends the pasta that nobody took.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Final
from uuid import uuid4

import structlog
from msgspec import Struct

from shoal.errors import EngineFailure
from shoal_local.limit.cgroups import Cgroups
from shoal_local.network import namespace, outward
from shoal_local.network.client import CODE
from shoal_local.network.modes import SEARCH, Network
from shoal_local.run.launch import Launcher, LauncherGone
from shoal_local.run.process import Process
from shoal_local.run.reaper import collect, stop
from shoal_local.state.box import Box
from shoal_local.state.trees import remove_tree

log: Final = structlog.get_logger("shoal.local")

IDLE_SECONDS: Final = 300.0
"""Without a create for so long, what is in stock is given up."""
MAX_FAILURES: Final = 3
"""Failures in a row after which no more is tried."""
READY_SECONDS: Final = 10.0
_HOLD: Final = 'echo; read -r word || kill -9 "$(cat pasta.pid)"'
_NOTHING: Final = Cgroups({})


class Spare(Struct):
    """A network that no sandbox has.

    Attributes:
        box: its directory, named like nothing else; a sandbox's processes are found by such a name, and so is pasta.
        namespaces: descriptors, in the order in which they are to be entered.
        closed: the networks that were closed when it was made.
        holder: the shell, and the pipe on which it waits.
    """

    network: Network
    box: Box
    namespaces: tuple[int, ...]
    process: Process
    closed: list[str]
    holder: tuple[int, int]

    def give(self, box: Box) -> None:
        """Let a sandbox have it; pasta is recorded with that from now on.

        Raises OSError, and then it is still to be closed.
        """
        (self.box.path / "net").rename(box.path / "net")
        with suppress(BrokenPipeError):
            os.write(self.holder[1], b"taken\n")
        self.close()

    def close(self) -> None:
        """Let go of it; unless it was given away, the shell ends pasta."""
        os.close(self.holder[1])

    def leave(self) -> None:
        """Close the namespaces, which live on in what is inside."""
        for handle in self.namespaces:
            os.close(handle)


class Spares:
    """The stock. May be used from any thread; ``size`` 0 = none is kept."""

    def __init__(self, folder: Path, size: int, launcher: Launcher) -> None:
        self._folder = folder
        self._size = size
        self._launcher = launcher
        self._lock = threading.Lock()
        self._filling = threading.Lock()
        self._stock: list[Spare] = []
        self._holders: list[int] = []
        self._proven = False
        self._failures = 0
        self._last = 0.0

    def sweep(self) -> None:
        """End what a killed server left, and remove its files."""
        for entry in self._folder.iterdir():
            _end(Box(entry))

    def take(self, network: Network, box: Box) -> Spare | None:
        """One that is from now on a sandbox's, or None; the caller leaves it. Raises OSError."""
        self._last = time.monotonic()
        while True:
            with self._lock:
                if not self._stock:
                    return None
                spare = self._stock.pop(0)
            # This machine may have another address by now.
            if spare.network == network and spare.process.alive() and spare.closed == outward.closed():
                self._give(spare, box)
                return spare
            self._discard(spare)

    def fill(self, network: Network | None, unshare: str | None) -> None:
        """Make as many as there are to be; returns at once if another thread does. Raises nothing."""
        if network is None or network.pasta is None or unshare is None or not self._filling.acquire(blocking=False):
            return
        try:
            self._collect()
            while len(self._stock) < self._size:
                spare = self._make(network, unshare)
                with self._lock:
                    self._stock.append(spare)
                self._failures = 0
        except (EngineFailure, OSError) as error:
            self._failures += 1
            if self._failures >= MAX_FAILURES:
                self._size = 0
            log.warning("no network is ready for the next sandbox", error=str(error), again=self._size > 0)
        finally:
            self._filling.release()

    def tend(self) -> None:
        """Give up what nobody has wanted for long."""
        self._collect()
        if time.monotonic() - self._last > IDLE_SECONDS:
            self._empty()

    def close(self) -> None:
        """Give up all. Waits for one that is just being made."""
        self._size = 0
        with self._filling:
            self._empty()
        self._collect(wait=True)

    def _give(self, spare: Spare, box: Box) -> None:
        try:
            spare.give(box)
        except OSError:
            spare.leave()
            spare.close()
            _end(spare.box)
            raise
        finally:
            with self._lock:
                self._holders.append(spare.holder[0])
        remove_tree(spare.box.path)

    def _empty(self) -> None:
        with self._lock:
            stock, self._stock = self._stock, []
        for spare in stock:
            self._discard(spare)

    def _discard(self, spare: Spare) -> None:
        spare.close()
        spare.leave()
        with self._lock:
            self._holders.append(spare.holder[0])
        _end(spare.box)

    def _collect(self, *, wait: bool = False) -> None:
        """Let the shells that have ended go from the process table."""
        with self._lock:
            holders, self._holders = self._holders, []
        for pid in holders:
            with suppress(ChildProcessError):
                if os.waitpid(pid, 0 if wait else os.WNOHANG)[0] == 0:
                    self._holders.append(pid)

    def _make(self, network: Network, unshare: str) -> Spare:
        """Raises EngineFailure, OSError."""
        box = Box(self._folder / f"spare-{uuid4().hex[:12]}")
        box.path.mkdir(mode=0o700)
        holder = _hold(box, unshare)
        handles: list[int] = []
        try:
            handles += _namespaces(holder[0])
            closed = outward.closed()
            network.broker.set_up(handles[-1])
            process = outward.connect(network.pasta or "", network.broker, handles[-1], network.allowed, box.path)
            box.write_net(process)
            self._prove(handles)
        except BaseException:
            for handle in (*handles, holder[1]):
                os.close(handle)
            _end(box)
            with self._lock:
                self._holders.append(holder[0])
            raise
        return Spare(network, box, tuple(handles), process, closed, holder)

    def _prove(self, namespaces: list[int]) -> None:
        """Enter one, once, before any sandbox depends on it. Raises EngineFailure if that does not work here."""
        if self._proven:
            return
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            shell = ["/bin/sh", "-c", "exit 0"]
            pid = self._launcher.launch(shell, {}, (null, null, null), None, namespaces)
        except LauncherGone:
            pid = None
        finally:
            os.close(null)
        if pid is None or os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0:
            self._size = 0
            raise EngineFailure(CODE, "a namespace cannot be entered by a process that is started")
        self._proven = True


def _hold(box: Box, unshare: str) -> tuple[int, int]:
    """The shell that has made the namespaces, and the pipe that it waits on. Raises EngineFailure, OSError."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = [unshare, *user, "--net", "/bin/sh", "-c", f"cd {quote(str(box.path))} && {_HOLD}"]
    (stdin, lifeline), (ready, stdout) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.posix_spawn(
            unshare,
            words,
            {"SHOAL_SANDBOX": box.id, "PATH": SEARCH},
            file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
        )
    except BaseException:
        os.close(lifeline)
        os.close(ready)
        raise
    finally:
        os.close(stdin)
        os.close(stdout)
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    said = os.read(ready, 1) if poll.poll(READY_SECONDS * 1000) else b""
    os.close(ready)
    if not said:
        os.close(lifeline)
        _end(box)
        collect(pid)
        raise EngineFailure(CODE, "no network namespace can be made in advance")
    return pid, lifeline


def _namespaces(pid: int) -> list[int]:
    """Those of the shell: the user namespace, for who is not root, and the network's. Raises EngineFailure, OSError."""
    found = [] if os.geteuid() == 0 else [os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)]
    network = namespace.open_namespace(pid)
    if network is None:
        raise EngineFailure(CODE, "no network namespace can be made in advance")
    return [*found, network]


def _end(box: Box) -> None:
    """End what runs under the name of a directory, and remove that."""
    stop(box, _NOTHING, 0)
    remove_tree(box.path)
