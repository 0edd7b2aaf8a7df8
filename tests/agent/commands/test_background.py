"""Background commands: status, logs, what stays of them."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.agent.commands.streams import run
from tests.agent.program import StartAgent

CURSOR = "EXECD-COMMANDS-TAIL-CURSOR"


def ended(client: httpx.Client, identifier: str) -> dict[str, Any]:
    """Its status once it has ended."""
    while True:
        status: dict[str, Any] = client.get(f"/command/status/{identifier}").json()
        if not status["running"]:
            return status
        time.sleep(0.01)


def test_it_is_answered_at_once(client: httpx.Client) -> None:
    started = run(client, "echo never-shown; sleep 300", background=True)
    assert [event["type"] for event in started.events] == ["init", "execution_complete"]
    status = client.get(f"/command/status/{started.id}").json()
    assert list(status) == ["id", "content", "running", "started_at"]
    assert client.delete("/command", params={"id": started.id}).status_code == 200
    assert ended(client, started.id)["error"] == "signal: terminated"


def test_a_status_tells_how_it_ended(client: httpx.Client) -> None:
    started = run(client, "exit 3", background=True)
    status = ended(client, started.id)
    times = [status.pop("started_at"), status.pop("finished_at")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment) for moment in times)
    assert status == {
        "id": started.id,
        "content": "exit 3",
        "running": False,
        "exit_code": 3,
        "error": "exit status 3",
    }


def test_a_foreground_command_has_a_status_and_no_logs(client: httpx.Client) -> None:
    done = run(client, argv=["true"])
    assert client.get(f"/command/status/{done.id}").json()["exit_code"] == 0
    assert client.get(f"/command/status/{done.id}").json()["content"] == '["true"]'
    assert client.get(f"/command/{done.id}/logs").status_code == 400


def test_unknown_ids(client: httpx.Client) -> None:
    assert client.get("/command/status/nope").status_code == 404
    assert client.get("/command/nope/logs").status_code == 400


@pytest.mark.parametrize(
    ("cursor", "body"),
    [
        ("", "abcdef"),
        ("?cursor=", "abcdef"),
        ("?cursor=2", "cdef"),
        ("?cursor=6", ""),
        ("?cursor=100", ""),
        ("?cursor=abc", "abcdef"),
        ("?cursor=2.5", "abcdef"),
        ("?cursor=99999999999999999999", "abcdef"),
    ],
)
def test_a_cursor_is_a_byte_offset(client: httpx.Client, cursor: str, body: str) -> None:
    started = run(client, "printf abc; printf def >&2", background=True)
    ended(client, started.id)
    logs = client.get(f"/command/{started.id}/logs{cursor}")
    assert (logs.text, logs.headers[CURSOR]) == (body, "6")
    assert logs.headers["content-type"] == "text/plain; charset=utf-8"


def test_a_negative_cursor_is_refused(client: httpx.Client) -> None:
    assert client.get(f"/command/{run(client, 'true', background=True).id}/logs?cursor=-1").status_code == 400


def test_a_timeout_ends_it(client: httpx.Client) -> None:
    started = run(client, "sleep 300", background=True, timeout=200)
    assert ended(client, started.id)["error"] == "signal: killed"


def test_one_that_cannot_start_ends_in_an_error(client: httpx.Client) -> None:
    started = run(client, argv=["no-such-program"], background=True)
    assert started.value is not None
    assert ended(client, started.id)["exit_code"] == 255


def test_its_output_is_private_and_survives_the_loss_of_its_directory(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(env={"TMPDIR": str(tmp_path)})
    with agent.client() as client:
        ended(client, run(client, "echo one", background=True).id)
        (directory,) = tmp_path.iterdir()
        assert directory.stat().st_mode & 0o777 == 0o700
        shutil.rmtree(directory)
        started = run(client, "echo two", background=True)
        ended(client, started.id)
        assert client.get(f"/command/{started.id}/logs").text == "two\n"
    agent.stop()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_agent_left_is_removed(start_agent: StartAgent, tmp_path: Path) -> None:
    agent = start_agent(env={"TMPDIR": str(tmp_path)})
    with agent.client() as client:
        run(client, "true", background=True)
    agent.process.kill()
    agent.process.wait()
    (left,) = tmp_path.iterdir()
    with start_agent(env={"TMPDIR": str(tmp_path)}).client() as client:
        run(client, "true", background=True)
    assert left not in tmp_path.iterdir()
