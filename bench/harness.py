"""What the benchmarks share: a server to measure, a load to put on it, and a table to print."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHOAL = Path(sys.executable).with_name("shoal")
GIGABYTE = 1 << 30
LEVEL = "INFO"
"""The default: one access line a request goes to the log file."""
SHARED = '[local]\nnetwork = "host"\n'
"""Sandboxes on the machine's network: what is compared reaches their ports without a proxy, too."""
CLOSED = '[local]\nnetwork = "none"\n'
"""Sandboxes without a way out: a thousand ways out take 20 GB."""
CREATE: dict[str, Any] = {
    "image": {"uri": "host"},
    "entrypoint": ["sleep", "86400"],
    "resourceLimits": {},
    "timeout": 86400,
}


def free_port() -> int:
    """A TCP port of loopback that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running server of either make."""

    base: str
    process: subprocess.Popen[bytes]

    def call(self, method: str, path: str, body: Any = None, timeout: float = 120.0) -> Any:
        """One request; returns the decoded body, or None without one. Raises urllib's HTTPError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self.base + path, data, headers, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - loopback
            text = answer.read()
        return json.loads(text) if text else None

    def rss_mb(self) -> float:
        """Resident memory of the server process in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024  # type: ignore[union-attr]

    def kill(self) -> None:
        """kill -9, and wait."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def await_health(base: str, process: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    """Return when ``/health`` answers; raise if the process ends or time runs out."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(base + "/health", timeout=1).close()  # noqa: S310 - loopback
        except (urllib.error.URLError, OSError):
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("the server did not come up")


@contextmanager
def shoal(
    home: Path, extra: str = "", port: int | None = None, env: dict[str, str] | None = None, program: Path = SHOAL
) -> Iterator[Server]:
    """``shoal serve`` with a store below ``home``, ended with SIGTERM."""
    port = port or free_port()
    config = home / "shoal.toml"
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {port}\n[log]\nlevel = "{LEVEL}"\n'
        f'[store]\npath = "{home / "shoal.db"}"\n{extra}'
    )
    log = (home / "server.log").open("ab")
    environment = {**os.environ, **(env or {})}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled; so is this one from now on
    process = subprocess.Popen([program, "serve", "--config", config], stdout=log, stderr=log, env=environment)
    try:
        await_health(f"http://127.0.0.1:{port}", process)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        log.close()


@contextmanager
def scratch(place: Path | None = None) -> Iterator[Path]:
    """A directory below ``place`` (the system's temporary directory) that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-", dir=place) as home:
        yield Path(home)


def wrk(url: str, *, connections: int = 32, seconds: int = 4, script: Path | None = None) -> float:
    """Requests a second of a GET, as wrk counts them; raises if any answer was not 2xx."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", url]
    if script is not None:
        command += ["-s", str(script)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(out)
    return float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))  # type: ignore[union-attr]


def median_wrk(url: str, runs: int = 3, **options: Any) -> float:
    """The median of several wrk runs."""
    return statistics.median(wrk(url, **options) for _ in range(runs))


def table(title: str, rows: list[tuple[str, str, str]]) -> str:
    """A Markdown table of (figure, measured, wanted)."""
    lines = [f"### {title}", "", "| figure | measured | wanted |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {a} | {b} | {c} |" for a, b, c in rows]) + "\n"
