"""The agent on its socket: from its first request until SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from shoal_agent import app, signals
from shoal_agent.agent import RunningAgent
from shoal_agent.conceal import conceal
from shoal_agent.environment import Environment, of_process, with_env_file
from shoal_agent.http.server import Server
from shoal_agent.lifecycle.places import configured
from shoal_agent.log import LOG
from shoal_agent.options import Options

if TYPE_CHECKING:
    from shoal_agent.maincommand import MainCommand


def run(given: Options, listener: socket.socket, environ: Mapping[str, str] | None = None) -> int:
    """Serves on a bound socket until SIGTERM or SIGINT. Returns the exit status. Call it in the main thread.

    A warm parent that forks an agent calls this in the child, with the variables of the sandbox.
    """
    LOG.start(given.log_level, given.log_file)
    signals.reset()
    agent = RunningAgent(given, Environment(with_env_file(of_process() if environ is None else environ)))
    if given.access_token:
        os.environ.pop("EXECD_ACCESS_TOKEN", None)
        conceal((given.access_token,))
    return asyncio.run(_serve(agent, listener))


async def _serve(agent: RunningAgent, listener: socket.socket) -> int:
    end = _end_of(agent)
    signals.let_through()
    agent.children.adopts = os.getpid() == 1
    agent.children.start()
    server = Server(app.build(agent))
    for start in agent.on_start:
        await start()
    await server.start(listener)
    gc.enable()
    LOG.info("listening on %s:%d", *listener.getsockname()[:2])
    status = await end
    await server.stop(agent.options.graceful_shutdown)
    for finish in agent.on_stop:
        await finish()
    return status


def _end_of(agent: RunningAgent) -> Coroutine[Any, Any, int]:
    """What waits for the end: that of the command with `--init`, else SIGTERM or SIGINT. Its result is the status."""
    loop = asyncio.get_running_loop()
    if agent.options.init:
        from shoal_agent.maincommand import FORWARDED, MainCommand

        command = MainCommand(agent.options.init, agent.environment.daemon, agent.children)
        for number in FORWARDED:
            loop.add_signal_handler(number, command.forward, number)
        return _end_of_command(agent, command)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return _end_by_signal(agent, stop)


async def _end_of_command(agent: RunningAgent, command: MainCommand) -> int:
    failed = await _run_hooks(agent)
    return failed or await command.start()


async def _end_by_signal(agent: RunningAgent, stop: asyncio.Event) -> int:
    agent.run_in_background(_run_hooks(agent))
    await stop.wait()
    return 0


async def _run_hooks(agent: RunningAgent) -> int:
    """Those before the command; the others are begun. Returns 0, or 1 if one failed."""
    if agent.options.startup_status_file is None and not configured(agent.environment.daemon):
        return 0
    from shoal_agent.lifecycle.hooks import HookRunner

    return await HookRunner(agent).start()
