"""The agent's program as a process of its own, for tests that talk to it as clients do."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx
from tests.support.servers import free_port

SOURCE = Path(__file__).parents[2] / "plugins" / "agent"
USER = 1000
"""The ordinary user of tests that run as root."""
TEST_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
"""A PATH on which python3 is the one that runs the tests."""


def as_user(uid: int) -> list[str]:
    """What to put before a command so that it runs as `uid`."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


@functools.cache
def interpreter(uid: int | None) -> str | None:
    """A Python that runs the agent as `uid`, None if there is none. It needs nothing installed."""
    if uid is None:
        return sys.executable
    if shutil.which("setpriv") is None or os.getuid() != 0:
        return None
    for python in (sys.executable, "/usr/bin/python3"):
        check = [*as_user(uid), python, "-c", "import sys, shoal_agent.main; assert sys.version_info >= (3, 11)"]
        done = subprocess.run(check, env={"PYTHONPATH": str(SOURCE)}, cwd="/", capture_output=True, check=False)
        if done.returncode == 0:
            return python
    return None


class AgentProcess:
    """Listens on a free port of loopback. Its env file, its log and its working directory are in `home`.

    Args:
        home: a directory of its own.
        flags: of the program, besides the port.
        env: more variables.
        uid: the user to run as, None for this process's own.
        prefix: a command that runs the one behind it.
    """

    def __init__(
        self,
        home: Path,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        uid: int | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self.home = home
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = home / "agent.log"
        self.env_file = home / "env"
        self.env_file.touch()
        if uid is not None:
            for path in (home, self.env_file):
                os.chown(path, uid, uid)
        command = [interpreter(uid) or sys.executable, "-m", "shoal_agent", f"--port={self.port}", *flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *(as_user(uid) if uid is not None else []), *command],
                stdout=log,
                stderr=log,
                cwd=home,
                start_new_session=True,
                env={
                    **{name: value for name, value in os.environ.items() if name not in ("LC_CTYPE", "TERM")},
                    "PYTHONPATH": str(SOURCE),
                    "HOME": str(home),
                    "EXECD_ENVS": str(self.env_file),
                    **(env or {}),
                },
            )
        self._wait_for_it()

    def _wait_for_it(self, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with self.connect() as connection:  # it takes connections a while before it serves them
                    connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                    if connection.recv(1):
                        return
            except ConnectionError:
                time.sleep(0.01)
        raise AssertionError("the agent did not come up:\n" + self.log.read_text(errors="replace")[-4000:])

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self) -> socket.socket:
        """A new connection, for requests byte by byte."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def client(self, **keywords: str) -> httpx.Client:
        """A client of it; the keywords are header fields, `_` standing for `-`."""
        headers = {name.replace("_", "-"): value for name, value in keywords.items()}
        return httpx.Client(base_url=self.base, headers=headers, timeout=30)

    def memory(self) -> int:
        """Resident bytes."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self) -> int:
        """SIGTERM. Returns the exit status."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


StartAgent = Callable[..., AgentProcess]
"""Starts an agent that stops with the test: the fixture ``start_agent``."""
