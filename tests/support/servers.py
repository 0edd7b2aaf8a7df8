"""A real ``shoal serve`` in a process of its own, for tests that talk to it as its users do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

SHOAL = Path(sys.executable).with_name("shoal")


def free_port() -> int:
    """A TCP port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """Starts, kills and starts again the same server: same configuration, same store, same port.

    Args:
        home: holds configuration, store, sandboxes and the server's log.
        extra: more TOML for the configuration.
    """

    def __init__(self, home: Path, extra: str = "", env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.log = home / "server.log"
        self.state_dir = home / "local"
        self._env = {**os.environ, "HOME": str(home), **(env or {})}
        self._config = home / "shoal.toml"
        self._config.write_text(
            f'[server]\nhost = "127.0.0.1"\nport = {self.port}\n[store]\npath = "{home / "shoal.db"}"\n{extra}'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 30.0) -> None:
        """Start and return once it answers. Raises AssertionError with the log if it does not."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [SHOAL, "serve", "--config", self._config], stdout=log, stderr=log, env=self._env
            )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                httpx.get(self.base + "/health", timeout=1)
            except httpx.TransportError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the server did not come up:\n" + self.log.read_text(errors="replace")[-4000:])

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        return self._process.wait(30)
