"""Starting the agent of a sandbox: on the first connection to its port, by the broker, inside the sandbox's namespaces.

The agent is a process of the sandbox like any other: under its filter of system calls, in its control groups, ended
with it, paused with it. It outlives the server.
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

from shoal.kit import Backoff
from shoal.plugin.interfaces import AGENT_PORT, AGENT_TOKEN_LABEL, Agent
from shoal_local.agent.placement import FOLDER
from shoal_local.network.client import Broker, Job
from shoal_local.run.keyring import JOIN_CALL
from shoal_local.run.process import Process, children, identify, open_pidfd
from shoal_local.state.box import Box, Spec

log: Final = structlog.get_logger("shoal.local")

LISTEN_SECONDS: Final = 8.0
"""How long an agent may take until it listens."""
FIRST_PAUSE: Final = 0.002
LONGEST_PAUSE: Final = 0.05
ENTER_SECONDS: Final = 5.0
"""How long a sandbox that was just started may take until its command is inside."""
_POLL: Final = 0.002


class Starter:
    """Starts agents, each once at a time. Used on the event loop.

    Args:
        box: the directory of a sandbox.
        groups: the control groups that its processes join.
        connect: a connection to a port of a sandbox.
        entry: the program that puts the filter of system calls on; None = there is no filter.
    """

    def __init__(
        self,
        agent: Agent,
        broker: Broker,
        box: Callable[[str], Box],
        groups: Callable[[str], list[Path]],
        connect: Callable[[str, int], Awaitable[socket]],
        entry: Callable[[], Path | None],
    ) -> None:
        self._connect = connect
        self._agent = agent
        self._broker = broker
        self._box = box
        self._groups = groups
        self._entry = entry
        self._starting: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, sandbox_id: str) -> None:
        """Start the agent, unless another caller is just doing that, and return once it listens.

        Raises EngineFailure, or ConnectionRefusedError for a sandbox that has none, or whose agent does not listen.
        """
        task = self._starting.get(sandbox_id)
        if task is None:
            task = self._starting[sandbox_id] = asyncio.create_task(self._bring_up(sandbox_id))
            task.add_done_callback(lambda done: self._done(sandbox_id, done))
        await asyncio.shield(task)

    def _done(self, sandbox_id: str, task: asyncio.Task[None]) -> None:
        self._starting.pop(sandbox_id, None)
        if not task.cancelled():
            task.exception()  # its callers may all have left

    async def _bring_up(self, sandbox_id: str) -> None:
        await asyncio.to_thread(self._start, sandbox_id)
        deadline, backoff = time.monotonic() + LISTEN_SECONDS, Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                (await self._connect(sandbox_id, AGENT_PORT)).close()
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            await asyncio.sleep(backoff.next())

    def _start(self, sandbox_id: str) -> None:
        box = self._box(sandbox_id)
        spec = box.spec()
        process = None if spec is None else _payload(box, spec.isolation)
        if spec is None or not spec.agent or process is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "this sandbox has no agent, or has ended")
        pid, handle = process
        try:
            self._broker.run(handle, self._entry(), self._job(spec, pid))
        finally:
            os.close(handle)
        log.debug("agent started", sandbox_id=sandbox_id)

    def _job(self, spec: Spec, pid: int) -> Job:
        raw = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        env = dict(os.fsdecode(pair).split("=", 1) for pair in raw if b"=" in pair)
        env |= self._agent.environment(spec.labels.get(AGENT_TOKEN_LABEL, ""))
        return Job(
            argv=self._agent.command(FOLDER),
            env=env,
            cwd=spec.workdir,
            groups=[str(file) for file in self._groups(spec.id)],
            network=spec.network != "host",
            privileged=spec.isolation == "unshare",
            keyctl=JOIN_CALL or 0,
        )


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
        time.sleep(_POLL)
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
