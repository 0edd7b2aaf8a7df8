"""A Redis server of a test's own, which may be killed, stopped and started again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import redis
from tests.support.servers import free_port


class RedisProcess:
    """``redis-server`` on a free port of loopback, with nothing on disk."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.dsn = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, socket_timeout=10)
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return once it answers."""
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        with (self._home / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "--dir", str(self._home)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, "redis-server did not come up"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9; nothing of what it held survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            self._process = None

    def freeze(self) -> None:
        """Connections stay open, and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, and the test's own connection."""
        self.kill()
        self.client.close()

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


def installed() -> bool:
    """Whether there is a ``redis-server`` to start."""
    return shutil.which("redis-server") is not None
