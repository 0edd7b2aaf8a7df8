"""The sandbox's own command, when the agent is its parent (``--init``): started, signalled, and its end passed on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from shoal_agent.children import Children
from shoal_agent.commands.spec import program
from shoal_agent.environment import encoded

FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT", "SIGALRM")
)
HIDDEN = frozenset({"EXECD_ACCESS_TOKEN", "EXECD_LIFECYCLE_CONFIG", "EXECD_RUNTIME_INIT", "OPENSANDBOX_LIFECYCLE"})
"""Variables of the agent that the command does not see."""
NOT_EXECUTABLE, NOT_FOUND = 126, 127


class MainCommand:
    """A process group of its own, on the agent's standard input and output."""

    def __init__(self, argv: tuple[str, ...], environment: Mapping[str, str], children: Children) -> None:
        self._argv = argv
        self._environment = {name: value for name, value in environment.items() if name not in HIDDEN}
        self._children = children
        self._pid: int | None = None
        self._started = False

    def start(self) -> asyncio.Future[int]:
        """Starts it. The future's result is the status to exit with: 128 and its number for a signal."""
        self._started = True
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            self._pid, ended = self._children.popen(
                [argument.encode("utf-8", "surrogateescape") for argument in self._argv],
                executable=self._file(),
                env=encoded(self._environment),
                process_group=0,
                preexec_fn=_to_foreground if os.isatty(0) else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            sys.stderr.write(f"shoal_agent: {self._argv[0]}: {getattr(error, 'strerror', None) or error}\n")
            done.set_result(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)
            return done
        ended.add_done_callback(lambda _: done.set_result(_status(ended.result())))
        return done

    def _file(self) -> str:
        return program(self._argv[0], self._environment, os.getcwd()) or self._argv[0]

    def forward(self, number: int) -> None:
        """Passes a signal on. One that asks for the end before there is a command ends the agent."""
        if self._pid is None and not self._started and number in (signal.SIGTERM, signal.SIGINT):
            raise SystemExit(128 + number)
        if self._pid is not None:
            try:
                os.kill(self._pid, number)
            except ProcessLookupError:
                self._pid = None


def _status(code: int) -> int:
    return code if code >= 0 else 128 - code


def _to_foreground() -> None:
    """In the child: its group becomes that of the terminal, so that Ctrl-C is for it."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
