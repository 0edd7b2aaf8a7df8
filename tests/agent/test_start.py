"""The first moments of the agent: who may connect when, and what is loaded by then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.agent.program import SOURCE, AgentProcess
from tests.support.servers import free_port

from shoal_agent.agent import RunningAgent
from shoal_agent.environment import Environment
from shoal_agent.http.routes import Routes
from shoal_agent.options import Options
from shoal_agent.rooms import PLACES, Rooms

HELD = """\
import sys
from shoal_agent import later, main
import_asyncio = later.import_asyncio
def when_told():
    print("listening", flush=True)
    sys.stdin.readline()
    import_asyncio()
later.import_asyncio = when_told
sys.exit(main.main(sys.argv[1:]))
"""
"""An agent that listens, and goes on when it gets a line."""


@contextmanager
def held() -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", HELD, f"--port={port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
            yield process, port
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_who_connects_before_it_serves_waits_and_is_answered() -> None:
    with held() as (process, port), socket.create_connection(("127.0.0.1", port), timeout=20) as early:
        early.sendall(b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        go_on(process)
        assert early.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_signal_to_end_that_comes_before_it_serves_ends_it_in_order() -> None:
    with held() as (process, _):
        process.send_signal(signal.SIGTERM)
        go_on(process)
        assert process.wait(20) == 0


def loaded(statement: str) -> set[str]:
    """The modules that a new interpreter has after it; stand-ins do not count."""
    script = f"""\
from shoal_agent import later
{statement}
print(*(name for name, module in sys.modules.items() if type(module) is not later._Later))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{script}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


LATER = {
    "logging",
    "inspect",
    "traceback",
    "subprocess",
    "json",
    "concurrent.futures",
    "asyncio.sslproto",
}


def test_until_it_serves_it_loads_no_room_and_little_of_the_standard_library() -> None:
    names = loaded("later.import_asyncio(); import shoal_agent.serving")
    assert not names & {*LATER, "dataclasses"}
    assert not [name for name in names if name.startswith(("shoal_agent.commands", "shoal_agent.files"))]
    assert {"asyncio.tasks", "shoal_agent.http.server"} <= names


def test_an_executor_which_begins_threads_loads_all_that_was_put_off() -> None:
    names = loaded("later.import_asyncio(); import concurrent.futures; concurrent.futures.ThreadPoolExecutor")
    assert names >= LATER


@pytest.mark.parametrize("name", sorted(LATER - {"concurrent.futures"}))
def test_what_was_put_off_is_the_module_itself_once_it_is_used(name: str) -> None:
    script = f"later.import_asyncio(); module = sys.modules[{name!r}]; later.load({name!r}); import {name}\n"
    assert name in loaded(f"{script}assert sys.modules[{name!r}] is module and module.__spec__.name == {name!r}")


def test_every_route_of_a_room_is_below_one_of_its_places() -> None:
    asked = []

    class Noted(Routes):
        def add(self, method: str, path: str, handler: object) -> None:
            asked.append(path)

    for room in {room for rooms in PLACES.values() for room in rooms}:
        agent = RunningAgent(Options(runtime_init=True), Environment({}))
        asked.clear()
        Rooms(agent, Noted()).open(room)
        assert asked
        for path in asked:
            reached = [place for place in PLACES if f"{path}/".startswith(f"/{place}/")]
            assert [room in PLACES[place] for place in reached] == [True]


def test_a_room_is_open_for_the_first_request_whatever_it_is(agent: AgentProcess, tmp_path: Path) -> None:
    with agent.client() as client:
        assert client.get("/files/info", params={"path": str(tmp_path)}).status_code == 200
        assert client.get("/nobody").status_code == 404
        assert client.delete("/code", params={"id": "none"}).status_code == 404
