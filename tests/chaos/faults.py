"""What can go wrong, each as a strike and its healing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.support.servers import ServerProcess, free_port


@dataclass
class Fault:
    """Something that goes wrong and is put right.

    Attributes:
        target: what it happens to; two faults of one target never happen at once.
        strike: makes it happen, with chance to decide on details.
        heal: puts it right; may be called without a strike. What the server needs is healed before the server is.
    """

    name: str
    target: str
    strike: Callable[[random.Random], None]
    heal: Callable[[], None] = field(default=lambda: None)


def of_server(server: ServerProcess, name: str = "server") -> list[Fault]:
    """``kill -9``, and a server that stands still for a while and goes on as if nothing had been."""

    def stop(_chance: random.Random) -> None:
        os.kill(server.pid, signal.SIGSTOP)

    def go_on() -> None:
        with suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)

    def start() -> None:
        if not answers(server):
            server.kill()
            server.start(120)

    return [
        Fault(f"kill -9 of the {name}", name, lambda _chance: server.kill(), start),
        Fault(f"SIGSTOP of the {name}", name, stop, go_on),
    ]


def answers(server: ServerProcess) -> bool:
    """Whether it is there."""
    try:
        return httpx.get(f"{server.base}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def full_disk(folder: Path) -> Fault:
    """Not a block is free on the file system of ``folder``."""
    filler = folder / "filler"

    def fill(_chance: random.Random) -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert shutil.disk_usage(folder).free < 65536

    return Fault("a full disk", "disk", fill, lambda: filler.unlink(missing_ok=True))


class Clock:
    """The server's wall clock, some seconds before or after ours.

    Attributes:
        environment: of a server that obeys it.
        ahead: by how much it has been ahead at most, since the last look at everything.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        library = folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
        self.environment = {"LD_PRELOAD": str(library), "SHOAL_CHAOS_CLOCK": str(self._file)}
        self.ahead = 0.0
        self._file.write_bytes(struct.pack("d", 0.0))

    @classmethod
    def missing(cls) -> str | None:
        """Why no clock can be moved; None if one can."""
        return None if shutil.which("cc") else "there is no C compiler (cc)"

    @property
    def fault(self) -> Fault:
        return Fault(
            "a moved clock", "clock", lambda chance: self._set(chance.uniform(-120, 120)), lambda: self._set(0)
        )

    def _set(self, seconds: float) -> None:
        self.ahead = max(self.ahead, seconds)
        with self._file.open("r+b", buffering=0) as file:  # the same file: every server has it mapped
            file.write(struct.pack("d", seconds))


class Redis:
    """A Redis of the run's own, which goes away and comes back with nothing in it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._command: list[str | Path] = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            folder,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @classmethod
    def missing(cls) -> str | None:
        """Why there is none; None if there is."""
        return None if shutil.which("redis-server") else "redis-server is not installed"

    def start(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def fault(self) -> Fault:
        return Fault("Redis away", "redis", lambda _chance: self.kill(), self.start)
