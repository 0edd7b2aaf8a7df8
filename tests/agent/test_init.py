"""The agent as the parent of the sandbox's command, and as process 1."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.agent.commands.streams import run
from tests.agent.program import SOURCE, StartAgent
from tests.support.servers import free_port

OWN_PIDS = ["unshare", "--pid", "--fork", "--mount-proc"]
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="a pid namespace of its own takes root")


def test_its_status_is_that_of_the_command(start_agent: StartAgent, tmp_path: Path) -> None:
    go = tmp_path / "go"
    agent = start_agent(["--init", "--", "sh", "-c", f"until [ -e {go} ]; do sleep 0.02; done; exit 7"])
    with agent.client() as client:
        assert client.get("/ping").status_code == 200
    go.touch()
    assert agent.process.wait(20) == 7


def test_signals_are_passed_on(start_agent: StartAgent, tmp_path: Path) -> None:
    ready, got = tmp_path / "ready", tmp_path / "got"
    script = f"trap 'touch {got}' USR1; trap 'exit 9' TERM; touch {ready}; while :; do sleep 0.02; done"
    agent = start_agent(["--init", "--", "sh", "-c", script])
    _until(ready)
    os.kill(agent.pid, signal.SIGUSR1)
    _until(got)
    os.kill(agent.pid, signal.SIGTERM)
    assert agent.process.wait(20) == 9


def test_death_by_a_signal_is_told_as_shells_do(start_agent: StartAgent, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    agent = start_agent(["--init", "--", "sh", "-c", f"echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 300"])
    _until(pid)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert agent.process.wait(20) == 128 + signal.SIGKILL


def test_the_command_does_not_see_the_token(start_agent: StartAgent, tmp_path: Path) -> None:
    seen = tmp_path / "env"
    agent = start_agent(
        ["--init", "--", "sh", "-c", f"env >{seen}.new; mv {seen}.new {seen}; exec sleep 300"],
        {"EXECD_ACCESS_TOKEN": "hidden", "SEEN": "1"},
    )
    _until(seen)
    assert "SEEN=1" in seen.read_text().splitlines()
    assert "hidden" not in seen.read_text()
    assert agent.process.poll() is None


@pytest.mark.parametrize(("command", "status"), [("no-such-program", 127), ("/etc/passwd", 126)])
def test_a_command_that_cannot_start(command: str, status: int) -> None:
    arguments = [sys.executable, "-m", "shoal_agent", f"--port={free_port()}", "--init", "--", command]
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == status
    assert command in done.stderr


@needs_root
def test_as_process_1_it_reaps_what_others_left(start_agent: StartAgent) -> None:
    agent = start_agent(["--init", "--", "sleep", "300"], prefix=OWN_PIDS)
    orphans = "for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.05' &); done; exit 3"
    with agent.client() as client:
        assert run(client, "cat /proc/1/cmdline | tr '\\0' ' '").texts()[0].find("shoal_agent") > 0
        for _ in range(5):
            assert run(client, orphans).value == "3"  # their own statuses are not mixed up
        while run(client, "cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -c '^Z'").texts() != ["0"]:
            time.sleep(0.02)


@needs_root
def test_as_process_1_it_ends_on_sigterm_without_a_command(start_agent: StartAgent) -> None:
    agent = start_agent(prefix=OWN_PIDS)
    assert agent.stop() == 0


def _until(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
