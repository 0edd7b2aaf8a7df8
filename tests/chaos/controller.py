"""A real controller, which a run starts by its command, stops, kills and starts again."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
from pathlib import Path

from tests.chaos.faults import Fault


class Controller:
    """Its process, and what it prints.

    Args:
        command: how it is started.
        log: what it prints is added to this file.
    """

    def __init__(self, command: str, log: Path) -> None:
        self._command = shlex.split(command)
        self._log = log
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def faults(self) -> list[Fault]:
        def stop(_chance: random.Random) -> None:
            self._signal(signal.SIGSTOP)

        def kill(_chance: random.Random) -> None:
            self._kill()

        return [
            Fault("SIGSTOP of the controller", "controller", stop, self.go_on),
            Fault("kill -9 of the controller", "controller", kill, self.go_on),
        ]

    def go_on(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGCONT)
        else:
            self._process = self._started()

    def check(self) -> None:
        """Raise AssertionError if it ended without being asked: nothing settles then, and nobody would know why."""
        code = self._process.poll()
        assert code is None, f"the controller ended by itself ({code}): {self._log.read_text(errors='replace')[-2000:]}"

    def close(self) -> None:
        self._kill()

    def _kill(self) -> None:
        if self._process.poll() is None:
            self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        """To the command and what it started: it may be a script."""
        os.killpg(self._process.pid, number)
