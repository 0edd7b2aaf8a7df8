"""``shoal serve`` in a process of its own: its flags, its end, and a port that is taken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
ENV = {**os.environ, "PYTHONPATH": str(ROOT / "bench" / "memory_runtime")}
"""With a runtime that works on any machine."""


PLUGINS = '[plugins]\nenabled = ["memory_runtime", "apikey_auth"]\n'


def configuration(home: Path, server: str) -> Path:
    file = home / "shoal.toml"
    file.write_text(f'{PLUGINS}[server]\n{server}[store]\npath = "{home}/shoal.db"\n')
    return file


def command(config: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "shoal.cli.main", "serve", "--config", str(config), *flags]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server whose file names another port than the flag."""
    config = configuration(tmp_path, 'host = "192.0.2.1"\nport = 1\n')
    port = free_port()
    with (tmp_path / "log").open("wb") as log:
        flags = ("--host", "127.0.0.1", "--port", str(port))
        server = subprocess.Popen(command(config, *flags), stdout=log, stderr=log, env=ENV)
    yield server, port
    if server.poll() is None:
        server.kill()
    server.wait(30)


def answers(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200
        except httpx.TransportError:
            time.sleep(0.05)
    return False


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_flags_go_before_the_file_and_a_signal_ends_it(
    served: tuple[subprocess.Popen[bytes], int], how: signal.Signals
) -> None:
    server, port = served
    assert answers(server, port)
    server.send_signal(how)
    assert server.wait(60) == 0


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_without_a_command_it_serves(tmp_path: Path, by: str) -> None:
    port = free_port()
    config = configuration(tmp_path, f'host = "127.0.0.1"\nport = {port}\n')
    flags = ["--config", str(config), "--reload"] if by == "flag" else []
    env = ENV if by == "flag" else {**ENV, "SANDBOX_CONFIG_PATH": str(config)}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "shoal.cli.main", *flags], stdout=log, stderr=log, env=env)
    try:
        assert answers(server, port), (tmp_path / "log").read_text()
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    config = configuration(tmp_path, 'host = "127.0.0.1"\n')
    env = {**ENV, "OPENSANDBOX_SERVER_API_KEY": "a-key"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        flags = ("--port", str(port))
        ended = subprocess.run(
            command(config, *flags), env=env, capture_output=True, text=True, check=False, timeout=60
        )
    assert ended.returncode == 1
    assert ended.stderr == f"shoal: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert ended.stdout == ""
