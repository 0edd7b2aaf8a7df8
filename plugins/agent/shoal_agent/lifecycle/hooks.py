"""Hooks, run."""

from __future__ import annotations

import asyncio
import os
import time

from shoal_agent.agent import RunningAgent
from shoal_agent.commands.group import Group, describe
from shoal_agent.commands.launch import StartError, launch
from shoal_agent.commands.spec import program
from shoal_agent.lifecycle.config import BadLifecycle, HookCommand, Hooks, load
from shoal_agent.log import LOG

FAILED = 1


class HookRunner:
    """The hook before the command runs once, where somebody waits for it: a status file, or `--init`."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        self._status_file = agent.options.startup_status_file

    async def start(self) -> int:
        """Runs what comes before the sandbox's command, then the schedules. Returns 0, or 1 if it failed."""
        try:
            hooks = load(self._agent.environment.daemon)
        except BadLifecycle as error:
            LOG.error("the lifecycle hooks cannot be read: %s", error)  # the reason says it all
            self._report("done", FAILED)
            return FAILED
        status = await self._before(hooks)
        if status == 0:
            for hook in hooks.periodic:
                self._agent.run_in_background(self._repeat(hook))
        return status

    async def _before(self, hooks: Hooks) -> int:
        awaited = self._status_file is not None or self._agent.options.init is not None
        status = 0
        if hooks.pre_start is not None and awaited:
            self._report("running", hooks.pre_start.seconds)
            status = 0 if await self.run(hooks.pre_start) else FAILED
        self._report("done", status)
        return status

    def _report(self, word: str, number: int) -> None:
        """A line for the bootstrap that waits."""
        if self._status_file is None:
            return
        try:
            with open(self._status_file, "a", encoding="ascii") as file:
                file.write(f"{word} {number}\n")
        except OSError as error:
            LOG.error("%s: %s", self._status_file, error.strerror)

    async def run(self, hook: HookCommand) -> bool:
        """Runs a hook to its end, at most for its seconds; its output goes to the log. Whether it went well."""
        environment = self._agent.environment.for_sessions()
        cwd = os.getcwd()
        file = program(hook.command[0], environment, cwd)
        try:
            if file is None:
                raise StartError(f"{hook.command[0]} is not found")
            pid, ended = launch(self._agent.children, file, hook.command, environment, cwd, stdout=2, stderr=2)
        except StartError as error:
            LOG.error("hook %s: %s", hook.name, error)
            return False
        done, _ = await asyncio.wait((ended,), timeout=hook.seconds)
        if not done:
            LOG.error("hook %s: not done after %d s", hook.name, hook.seconds)
            Group(pid).kill()
            await ended
            return False
        code, text = describe(ended.result())
        if code:
            LOG.error("hook %s: %s", hook.name, text)
        return code == 0

    async def _repeat(self, hook: HookCommand) -> None:
        """Runs it at every time of its schedule that is still to come; never twice at once."""
        schedule = hook.schedule
        while schedule is not None:
            await asyncio.sleep(max(schedule.after(time.time()) - time.time(), 0))
            await self.run(hook)
