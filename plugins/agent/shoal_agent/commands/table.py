"""The commands of an agent: started, found, forgotten after a day."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

from shoal_agent.accounts import Accounts
from shoal_agent.agent import RunningAgent
from shoal_agent.commands import events
from shoal_agent.commands.command import CommandRun
from shoal_agent.commands.launch import StartError, credentials, failed, launch
from shoal_agent.commands.spec import CommandSpec, program, shell
from shoal_agent.commands.store import OutputStore, candidates, shorten

RECORD_SECONDS = 24 * 3600.0
"""How long the record of a finished command and the output of a background one stay."""
SWEEP_INTERVAL = 10.0
MAX_RECORDS = 10_000
REPLAY_BYTES = 16 * 1024 * 1024
"""Streams of finished commands that can still be taken up, all together."""


class Commands:
    """All of one agent."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._accounts = Accounts()
        self._commands: dict[str, CommandRun] = {}
        self._finished: dict[str, CommandRun] = {}
        self._replayable: dict[str, int] = {}
        self._replay_bytes = 0
        self._store = OutputStore(candidates(agent.environment.daemon))

    def find(self, identifier: str) -> CommandRun | None:
        return self._commands.get(identifier)

    def start(self, spec: CommandSpec) -> CommandRun:
        """Runs it. One that cannot start is a command that has ended. Raises `ApiError` if its output has no place."""
        identifier = os.urandom(16).hex()
        output = self._store.create(identifier) if spec.background else None
        command = CommandRun(identifier, spec.content, spec.background, self._agent.oom, self._keep)
        self._commands[identifier] = command
        command.journal.append(events.init(identifier))
        try:
            self._launch(command, spec, output)
        except StartError as error:
            command.not_started(str(error))
        except BaseException:
            del self._commands[identifier]  # it neither runs nor has ended
            raise
        finally:
            if output is not None:
                os.close(output[1])
        if spec.background:
            self._answer_background(command)
        return command

    def _launch(self, command: CommandRun, spec: CommandSpec, output: tuple[str, int] | None) -> None:
        environment = self._agent.environment.for_commands(spec.envs)
        file, argv = _invocation(spec, environment, self._agent.environment.daemon)
        try:
            identity = credentials(spec.uid, spec.gid, self._accounts)
        except OSError as error:
            raise failed(file, error) from None
        if output is not None:
            command.output_file, stdout = output
            stderr = stdout
        else:
            stdout, stderr = command.open_pipes()
        started = launch(
            self._agent.children,
            file,
            argv,
            environment,
            spec.cwd,
            stdout=stdout,
            stderr=stderr,
            identity=identity,
        )
        command.run(*started, spec.timeout)

    @staticmethod
    def _answer_background(command: CommandRun) -> None:
        """Its stream ends at once; what it becomes is asked for by status and logs."""
        reason = command.error
        command.journal.append(events.error("CommandExecError", reason, [reason]) if reason else events.complete(0))
        command.journal.finish()

    async def interrupt(self, identifier: str) -> bool:
        """Ends the command's whole group, children that outlived the shell included. False if the id is unknown."""
        command = self._commands.get(identifier)
        if command is None:
            return False
        if command.group is not None:
            await command.group.terminate()
        return True

    # What stays of those that have ended.

    def _keep(self, command: CommandRun) -> None:
        self._finished[command.id] = command
        if not command.background:
            self._replayable[command.id] = command.journal.end - command.journal.start
            self._replay_bytes += self._replayable[command.id]
        while self._replay_bytes > REPLAY_BYTES:
            oldest = next(iter(self._replayable))
            self._replay_bytes -= self._replayable.pop(oldest)
            self._commands[oldest].journal.forget()
        while len(self._finished) > MAX_RECORDS:
            self._forget(next(iter(self._finished.values())))

    def _forget(self, command: CommandRun) -> None:
        del self._finished[command.id], self._commands[command.id]
        self._replay_bytes -= self._replayable.pop(command.id, 0)
        if command.output_file is not None:
            with contextlib.suppress(OSError):
                os.unlink(command.output_file)

    def sweep(self, older_than: float) -> None:
        """Forgets the commands that ended before that Unix time."""
        for command in [c for c in self._finished.values() if (c.finished_at or 0) < older_than]:
            self._forget(command)

    async def sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_INTERVAL)
            self.sweep(time.time() - RECORD_SECONDS)
            if len(self._finished) < len(self._commands):
                self._agent.oom.tick()
            for command in self._commands.values():
                if command.output_file is not None and command.running:
                    command.output_start = shorten(command.output_file, command.output_start)

    async def close(self) -> None:
        """At the agent's end: commands run on, the files go."""
        self._store.remove()


def _invocation(spec: CommandSpec, environment: dict[str, str], daemon: dict[str, str]) -> tuple[str, list[str]]:
    """The file to execute and its arguments. Raises `StartError`."""
    if spec.command is not None:
        file = shell(daemon)
        if file is None:
            raise StartError("this image has neither bash nor sh: give the command as argv")
        return file, [os.path.basename(file), "-c", spec.command]
    found = program(spec.argv[0], environment, spec.cwd)
    if found is None:
        raise StartError(f'exec: "{spec.argv[0]}": executable file not found in $PATH')
    return found, spec.argv
