"""The program: reads its options, serves until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from shoal_agent import app, options, signals
from shoal_agent.agent import RunningAgent
from shoal_agent.conceal import conceal
from shoal_agent.environment import Environment, of_process, with_env_file
from shoal_agent.http.server import Server, listen
from shoal_agent.lifecycle import HookRunner
from shoal_agent.maincommand import FORWARDED, MainCommand

_LOG = logging.getLogger("shoal_agent")


def main(arguments: Sequence[str]) -> int:
    """Runs the agent. Returns its exit status: 2 for wrong options, 1 if it cannot listen."""
    try:
        given = options.parse(arguments, os.environ)
    except ValueError as error:
        sys.stderr.write(f"shoal_agent: {error}\n")
        return 2
    try:
        listener = listen(given.host, given.port)
    except OSError as error:
        sys.stderr.write(f"shoal_agent: cannot listen on {given.host}:{given.port}: {error.strerror}\n")
        return 1
    return run(given, listener)


def run(given: options.Options, listener: socket.socket, environ: Mapping[str, str] | None = None) -> int:
    """Serves on a bound socket until SIGTERM or SIGINT. Returns the exit status. Call it in the main thread.

    A warm parent that forks an agent calls this in the child, with the variables of the sandbox.
    """
    _start_log(given)
    signals.reset()
    agent = RunningAgent(given, Environment(with_env_file(of_process() if environ is None else environ)))
    if given.access_token:
        os.environ.pop("EXECD_ACCESS_TOKEN", None)
        conceal((given.access_token,))
    return asyncio.run(_serve(agent, listener))


async def _serve(agent: RunningAgent, listener: socket.socket) -> int:
    end = _end_of(agent)  # before anybody can know that it runs: a signal that came earlier would be lost
    agent.children.adopts = os.getpid() == 1
    agent.children.start()
    server = Server(app.build(agent))
    for start in agent.on_start:
        await start()
    await server.start(listener)
    _LOG.info("listening on %s:%d", *listener.getsockname()[:2])
    status = await end
    await server.stop(agent.options.graceful_shutdown)
    for finish in agent.on_stop:
        await finish()
    return status


def _end_of(agent: RunningAgent) -> Coroutine[Any, Any, int]:
    """What waits for the end: that of the command with `--init`, else SIGTERM or SIGINT. Its result is the status."""
    loop = asyncio.get_running_loop()
    if agent.options.init:
        command = MainCommand(agent.options.init, agent.environment.daemon, agent.children)
        for number in FORWARDED:
            loop.add_signal_handler(number, command.forward, number)
        return _end_of_command(agent, command)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return _end_by_signal(agent, stop)


async def _end_of_command(agent: RunningAgent, command: MainCommand) -> int:
    failed = await HookRunner(agent).start()
    return failed or await command.start()


async def _end_by_signal(agent: RunningAgent, stop: asyncio.Event) -> int:
    agent.run_in_background(HookRunner(agent).start())
    await stop.wait()
    return 0


def _start_log(given: options.Options) -> None:
    """Levels are those of syslog: 3 errors, 4 warnings, 6 information, 7 debugging."""
    levels = {3: logging.ERROR, 4: logging.WARNING, 5: logging.INFO, 6: logging.INFO}
    level = logging.DEBUG if given.log_level > 6 else levels.get(given.log_level, logging.CRITICAL)
    handler = logging.FileHandler(given.log_file) if given.log_file else logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _LOG.handlers[:] = [handler]
    _LOG.propagate = False
    _LOG.setLevel(level)
