"""Hooks on the real program."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.agent.program import StartAgent

from shoal_agent.lifecycle.config import BadLifecycle, load, parse


def lifecycle(**hooks: Any) -> dict[str, str]:
    return {"OPENSANDBOX_LIFECYCLE": json.dumps(hooks), "EXECD_ACCESS_TOKEN": "hidden"}


def _until(file: Path, text: str = "") -> str:
    while not file.exists() or text not in file.read_text():
        time.sleep(0.01)
    return file.read_text()


@pytest.mark.parametrize(
    ("command", "seconds", "lines"),
    [
        (["sh", "-c", "true"], None, ["running 60", "done 0"]),
        (["sh", "-c", "exit 3"], 7, ["running 7", "done 1"]),
        (["sh", "-c", "trap '' TERM; sleep 300"], 1, ["running 1", "done 1"]),
        (["no-such-program"], 7, ["running 7", "done 1"]),
    ],
)
def test_the_bootstrap_is_told(
    start_agent: StartAgent, tmp_path: Path, command: list[str], seconds: int | None, lines: list[str]
) -> None:
    status = tmp_path / "status"
    hook = {"command": command, **({"timeoutSeconds": seconds} if seconds else {})}
    start_agent([f"--lifecycle-startup-status-file={status}"], lifecycle(preStart=hook))
    assert _until(status, "done").splitlines() == lines


def test_what_cannot_be_read_is_a_failure(start_agent: StartAgent, tmp_path: Path) -> None:
    status = tmp_path / "status"
    agent = start_agent([f"--lifecycle-startup-status-file={status}"], {"OPENSANDBOX_LIFECYCLE": '{"preStart":5}'})
    assert _until(status, "done") == "done 1\n"
    assert "preStart must be an object" in agent.log.read_text()


def test_with_init_it_comes_before_the_command(start_agent: StartAgent, tmp_path: Path) -> None:
    file = tmp_path / "order"
    hook = {"command": ["sh", "-c", f"sleep 0.2; env >>{file}; echo hook >>{file}"]}
    command = ["sh", "-c", f"echo 'the command' >>{file}; exec sleep 300"]
    agent = start_agent(["--init", "--", *command], lifecycle(preStart=hook))
    *seen, hooked, commanded = _until(file, "\nthe command\n").splitlines()
    assert (hooked, commanded) == ("hook", "the command")
    assert not any("hidden" in line or "OPENSANDBOX_LIFECYCLE" in line for line in seen)
    assert agent.process.poll() is None


def test_with_init_its_failure_is_the_end(start_agent: StartAgent, tmp_path: Path) -> None:
    never = tmp_path / "never"
    hook = {"command": ["sh", "-c", "sleep 0.2; exit 3"]}
    agent = start_agent(["--init", "--", "touch", str(never)], lifecycle(preStart=hook))
    assert agent.process.wait(20) == 1
    assert not never.exists()


def test_periodic_hooks_repeat_and_never_overlap(start_agent: StartAgent, tmp_path: Path) -> None:
    file = tmp_path / "ticks"
    hook = {"name": "tick", "schedule": "@every 1s", "command": ["sh", "-c", f"echo begin >>{file}; echo end >>{file}"]}
    start_agent(env=lifecycle(periodic=[hook], preStart={"command": ["touch", str(tmp_path / "again")]}))
    assert _until(file, "begin\nend\nbegin\nend\n")
    assert not (tmp_path / "again").exists()  # nobody waits for it: this is not the sandbox's start


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"preStart": {"command": []}},
        {"preStart": {"command": [" "]}},
        {"preStart": {"command": ["x"], "timeoutSeconds": 0}},
        {"periodic": {}},
        {"periodic": [{"command": ["x"], "schedule": "* * * * *"}]},
        {"periodic": [{"name": "x", "command": ["x"], "schedule": "never"}]},
        {"periodic": [{"name": "x", "command": ["x"], "schedule": "* * * * *", "timeoutSeconds": 301}]},
    ],
)
def test_what_is_no_lifecycle(value: Any) -> None:
    with pytest.raises(BadLifecycle):
        parse(value)


def test_a_file_of_toml(tmp_path: Path) -> None:
    file = tmp_path / ".execd" / "lifecycle.toml"
    file.parent.mkdir()
    first = '[pre_start]\ncommand = ["x"]\ntimeout_seconds = 5\n'
    file.write_text(first + '[[periodic]]\nname = "p"\nschedule = "@daily"\ncommand = ["y"]\n')
    for environ in ({"HOME": str(tmp_path)}, {"EXECD_LIFECYCLE_CONFIG": str(file)}):
        hooks = load(environ)
        assert hooks.pre_start is not None
        assert (hooks.pre_start.command, hooks.pre_start.seconds) == (["x"], 5)
        assert [hook.name for hook in hooks.periodic] == ["p"]
    assert load({"HOME": "/nowhere"}) == (None, [])
