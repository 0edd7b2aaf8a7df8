"""One session: a run at a time, each a shell of its own that starts where the last one ended."""

from __future__ import annotations

import asyncio
import os

from shoal_agent.agent import RunningAgent
from shoal_agent.commands import events
from shoal_agent.commands.command import CommandRun
from shoal_agent.commands.launch import StartError, launch
from shoal_agent.commands.spec import shell
from shoal_agent.commands.store import OutputStore
from shoal_agent.sessions.state import Report, SessionState, wrapped

BASH_OPTIONS = ("--noprofile", "--norc")


class ShellSession:
    """Runs wait for one another, in their order."""

    def __init__(self, identifier: str, cwd: str, agent: RunningAgent, store: OutputStore) -> None:
        self.id = identifier
        self.run: CommandRun | None = None
        """The last run."""
        self.deleted = False
        self._agent = agent
        self._store = store
        self._state = SessionState(cwd)
        self._turn = asyncio.Lock()

    @property
    def cwd(self) -> str:
        """Where the next run starts; the root if it is gone."""
        return self._state.cwd if os.path.isdir(self._state.cwd) else "/"

    async def start(self, command: str, cwd: str | None, limit: float) -> CommandRun | None:
        """Begins a run when those before it have ended. None if the session was deleted meanwhile.

        After `limit` seconds its whole group is killed.
        """
        await self._turn.acquire()
        if self.deleted:
            self._turn.release()
            return None
        if cwd is not None:
            self._state.cwd = cwd
        try:
            report = Report(self._store)
        except BaseException:
            self._turn.release()
            raise
        begun = self._state.environment(self._agent.environment.for_sessions())

        def finished(run: CommandRun) -> None:
            self._state.learn(begun, report.close())
            self._turn.release()

        self.run = CommandRun(self.id, command, False, self._agent.oom, finished)
        self.run.journal.append(events.init(self.id))
        try:
            self._launch(self.run, wrapped(command, report), begun, limit)
        except StartError as error:
            self.run.not_started(str(error))
        return self.run

    def _launch(self, run: CommandRun, script: str, environment: dict[str, str], limit: float) -> None:
        file = shell(self._agent.environment.daemon)
        if file is None:
            raise StartError("this image has neither bash nor sh")
        name = os.path.basename(file)
        options = BASH_OPTIONS if name == "bash" else ()
        stdout, stderr = run.open_pipes()
        argv = [name, *options, "-c", script]
        started = launch(self._agent.children, file, argv, environment, self.cwd, stdout=stdout, stderr=stderr)
        run.run(*started, limit)

    async def interrupt(self) -> None:
        """Ends the run; the session stays."""
        if self.run is not None and self.run.group is not None:
            await self.run.group.terminate()

    def delete(self) -> None:
        """Kills what runs; nothing runs any more."""
        self.deleted = True
        if self.run is not None and self.run.running and self.run.group is not None:
            self.run.group.kill()
