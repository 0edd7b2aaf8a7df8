"""Starting the agent of a sandbox: on the first connection to its port, in the sandbox's namespaces.

The agent is a process of the sandbox like any other: under its filter of system calls, in its control groups, ended
with it, paused with it. It outlives the server. It is forked from a parent that has imported it already, unless the
sandbox was made with other files of it than there are now: then those are executed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import Final

import structlog
from msgspec import Struct

from shoal.errors import EngineFailure
from shoal.kit import Backoff
from shoal.plugin.interfaces import AGENT_PORT, AGENT_TOKEN_LABEL, Agent, AgentFiles
from shoal_local.agent.placement import FOLDER
from shoal_local.agent.spawner import Job, Parent
from shoal_local.run.keyring import JOIN_CALL
from shoal_local.run.process import Process, children, identify, open_pidfd, stat_fields
from shoal_local.state.box import Box, Spec

log: Final = structlog.get_logger("shoal.local")

LISTEN_SECONDS: Final = 8.0
"""How long an agent may take until it listens."""
FIRST_PAUSE: Final = 0.002
MAX_PAUSE: Final = 0.05
ENTER_SECONDS: Final = 5.0
"""How long a sandbox that was just started may take until its command is inside."""
_POLL_INTERVAL: Final = 0.002


class Surroundings(Struct, frozen=True):
    """What a starter needs to know of sandboxes.

    Attributes:
        box: the directory of a sandbox.
        groups: the control groups that its processes join.
        filter: the file of the filter of system calls; None = there is no filter.
        files: the agent's files as they are now, if there are any.
    """

    box: Callable[[str], Box]
    groups: Callable[[str], list[Path]]
    filter: Callable[[], Path | None]
    files: Callable[[], Awaitable[AgentFiles | None]]


class Starter:
    """Starts agents, each once at a time. Used on the event loop; `connect` connects to a port of a sandbox."""

    def __init__(
        self, agent: Agent, surroundings: Surroundings, connect: Callable[[str, int], Awaitable[socket]]
    ) -> None:
        self._agent = agent
        self._surroundings = surroundings
        self._connect = connect
        self._executing = Parent()
        self._forking: tuple[str, Parent] | None = None
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._unneeded: set[str] = set()

    def expect(self, sandbox_id: str) -> None:
        """A sandbox was just made: its agent does not run."""
        self._unneeded.add(sandbox_id)

    async def warm(self) -> None:
        """Start the parent that agents are forked from, if there is one and it does not run. Raises nothing."""
        forking = await self._forking_parent()
        if forking is not None:
            try:
                await asyncio.to_thread(forking[1].warm)
            except EngineFailure as error:
                log.warning("agents cannot be forked", error=error.message)

    async def ensure(self, sandbox_id: str) -> None:
        """Start the agent, unless another caller is just doing that, and return once it listens.

        Raises EngineFailure, or ConnectionRefusedError for a sandbox that has none, or whose agent does not listen.
        """
        task = self._starting.get(sandbox_id)
        if task is None:
            task = self._starting[sandbox_id] = asyncio.create_task(self._bring_up(sandbox_id))
            task.add_done_callback(lambda done: self._done(sandbox_id, done))
        await asyncio.shield(task)

    async def ensure_first(self, sandbox_id: str) -> None:
        """The same where the agent is known not to run, without asking its port before; otherwise nothing.

        Raises nothing: a connection to the port tells what is wrong.
        """
        if sandbox_id in self._unneeded:
            self._unneeded.discard(sandbox_id)
            with suppress(EngineFailure, OSError):
                await self.ensure(sandbox_id)

    def forget(self, sandbox_id: str) -> None:
        """The sandbox has ended."""
        self._unneeded.discard(sandbox_id)

    def close(self) -> None:
        """End the parents; agents go on."""
        self._executing.close()
        if self._forking is not None:
            self._forking[1].close()
            self._forking = None

    def _done(self, sandbox_id: str, task: asyncio.Task[None]) -> None:
        self._starting.pop(sandbox_id, None)
        if not task.cancelled():
            task.exception()  # its callers may all have left

    async def _forking_parent(self) -> tuple[str, Parent] | None:
        """The digest of the files that agents are forked with, and their parent; None where there is no such thing."""
        if self._forking is None:
            files = await self._surroundings.files()
            forked = None if files is None else self._agent.forked(files.folder)
            if self._forking is None and files is not None and forked is not None:
                self._forking = (files.digest, Parent(forked))
        return self._forking

    async def _bring_up(self, sandbox_id: str) -> None:
        if await asyncio.to_thread(self._start, sandbox_id, await self._forking_parent()):
            return
        deadline, backoff = time.monotonic() + LISTEN_SECONDS, Backoff(FIRST_PAUSE, MAX_PAUSE)
        while True:
            try:
                (await self._connect(sandbox_id, AGENT_PORT)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(backoff.next())

    def _start(self, sandbox_id: str, forking: tuple[str, Parent] | None) -> bool:
        """Start it; returns whether it is known to listen already."""
        box = self._surroundings.box(sandbox_id)
        spec = box.spec()
        process = None if spec is None else _payload(box, spec.isolation)
        if spec is None or not spec.agent or process is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "this sandbox has no agent, or has ended")
        pid, handle = process
        try:
            return self._run(spec, _variables(pid), handle, forking)
        finally:
            os.close(handle)

    def _run(self, spec: Spec, variables: bytes, handle: int, forking: tuple[str, Parent] | None) -> bool:
        variables += _encoded(self._agent.environment(spec.labels.get(AGENT_TOKEN_LABEL, "")))
        job, program = self._job(spec, len(variables)), self._surroundings.filter()
        if forking is not None and forking[0] == spec.agent_digest:
            try:
                forking[1].run(job, variables, handle, program)
            except EngineFailure as error:
                log.warning("an agent cannot be forked", sandbox_id=spec.id, error=error.message)
            else:
                log.debug("agent forked", sandbox_id=spec.id)
                return True
        self._executing.run(job, variables, handle, program)
        log.debug("agent executed", sandbox_id=spec.id)
        return False

    def _job(self, spec: Spec, size: int) -> Job:
        return Job(
            argv=self._agent.command(FOLDER),
            label=f"OPENSANDBOX_ID={spec.id}",
            folder=FOLDER,
            cwd=spec.workdir,
            groups=[str(file) for file in self._surroundings.groups(spec.id)],
            network=spec.network != "host",
            privileged=spec.isolation == "unshare",
            keyctl=JOIN_CALL or 0,
            size=size,
        )


def _variables(pid: int) -> bytes:
    """Of the sandbox's own command, each with a NUL behind it. Raises OSError if it has ended."""
    deadline = time.monotonic() + ENTER_SECONDS
    while True:
        place = _variables_place(pid)
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        # While a program is being executed it shows none, or only the beginning of those that it had.
        whole = place is not None and len(raw) == place[1] - place[0] and place == _variables_place(pid)
        if whole or time.monotonic() > deadline:
            return raw if not raw or raw.endswith(b"\0") else raw + b"\0"
        time.sleep(_POLL_INTERVAL)


def _variables_place(pid: int) -> tuple[int, int] | None:
    """Where in its memory they begin and end (fields 50 and 51 of /proc/pid/stat); None if they are nowhere."""
    fields = stat_fields(pid)
    return None if fields is None or fields[47] == "0" else (int(fields[47]), int(fields[48]))


def _encoded(variables: dict[str, str]) -> bytes:
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in variables.items())


def _payload(box: Box, method: str) -> tuple[int, int] | None:
    """Pid and pidfd of the sandbox's own command; None if it has ended. The caller closes the pidfd."""
    started = box.started()
    if started is None or started.init is None:
        return None
    deadline = time.monotonic() + ENTER_SECONDS
    while started.init.alive() and time.monotonic() < deadline:
        for process in _below(started.init.pid, method):
            handle = open_pidfd(process)
            if handle is not None:
                return process.pid, handle
        time.sleep(_POLL_INTERVAL)
    return None


def _below(init: int, method: str) -> list[Process]:
    """Children of the first process that are inside, oldest first."""
    found = [process for pid in children(init) if (process := identify(pid)) is not None]
    inside = [process for process in found if method == "bubblewrap" or _shut(process.pid, init)]
    return sorted(inside, key=lambda process: process.started)


def _shut(pid: int, init: int) -> bool:
    """Has it left the first one's mounts? That one keeps the machine's root, and nobody is to join it there."""
    with suppress(OSError):
        return not Path(f"/proc/{pid}/ns/mnt").samefile(f"/proc/{init}/ns/mnt")
    return False
