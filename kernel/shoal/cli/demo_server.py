"""A server of its own for a demo, and the words in which demos tell what they do.

``shoal demo`` and ``examples/demo.py`` share it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path


class DemoError(Exception):
    """Something was not as it should be; the text says what."""


class DemoServer:
    """``shoal serve`` in a process of its own, on a free port of loopback.

    Args:
        home: holds its configuration, store and log, and the sandboxes' files.
        key: the API key that it asks for; None for none.
    """

    def __init__(self, home: Path, key: str | None = None) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._home, self._key = home, key
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises DemoError if it does not within 30 s."""
        config = self._home / "shoal.toml"
        config.write_text(
            f'[server]\nhost = "127.0.0.1"\nport = {self.port}\n'
            f'[store]\npath = "{self._home}/shoal.db"\n'
            f'[storage]\nallowed_host_paths = ["{interpreter()}"]\n'
        )
        say("Start the server", f"shoal serve --config {config}")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own executable
                [sys.executable, "-m", "shoal.cli.main", "serve", "--config", str(config)],
                env={**os.environ, **({"OPENSANDBOX_SERVER_API_KEY": self._key} if self._key else {})},
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which ends its sandbox before the server
            )
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None:
                raise DemoError(f"the server ended with code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise DemoError("the server did not answer within 30 s")
            time.sleep(0.02)
        report(f"http://{self.address} answers")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/health", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        say("Stop the server", "SIGTERM")
        self._process.terminate()
        try:
            report(f"exit code {self._process.wait(20)}")
        except subprocess.TimeoutExpired:
            self._process.kill()

    def log_tail(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else "(none)"


def run_demo(
    steps: Callable[[DemoServer], None],
    done: str,
    *,
    key: str | None = None,
    failures: tuple[type[Exception], ...] = (),
) -> int:
    """Take the steps against a server of their own; returns the exit code, which is 1 after a DemoError or OSError.

    Args:
        done: printed at the end, with ``{seconds}`` for how long it took.
        key: as of `DemoServer`.
        failures: further errors of the steps that are reported as theirs.
    """
    reported: tuple[type[Exception], ...] = (DemoError, OSError, *failures)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as home:
        server = DemoServer(Path(home), key)
        try:
            server.start()
            steps(server)
        except reported as error:
            print(f"\nFAILED: {error}\n\nThe server's log:\n{server.log_tail()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            server.stop()
    print("\n" + done.format(seconds=f"{time.monotonic() - begun:.1f} s"))
    return 0


def interpreter() -> Path:
    """The folder of the Python that runs this; ``bin/python3`` is in it."""
    return Path(sys.base_prefix).resolve()


def is_hidden(path: Path) -> bool:
    """Whether a sandbox on the image ``host`` does not see a path of this machine: it is in a home directory, say."""
    hidden = (Path.home(), Path("/root"), Path("/home"), Path("/tmp"))  # noqa: S108 - compared, not used
    return any(path.is_relative_to(place) for place in hidden)


def free_port() -> int:
    """A TCP port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def say(what: str, how: str) -> None:
    """Print a step, and the call that does it."""
    print(f"\n* {what}\n    {how}", flush=True)


def report(text: str) -> None:
    """Print what came of it."""
    print(f"    > {text}", flush=True)


def since(begun: float) -> str:
    """The time since ``begun``, of the monotonic clock, in milliseconds."""
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"
