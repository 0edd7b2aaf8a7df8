"""Streams that are taken up again, and what slow or gone clients cost."""

from __future__ import annotations

import time

import httpx
import pytest
from tests.agent.commands.streams import Run, parse, run
from tests.agent.program import StartAgent

MEGABYTE = 1024 * 1024


def begin(client: httpx.Client, command: str, until: bytes) -> bytes:
    """The first bytes of a run, up to where they hold `until`; then the connection is dropped."""
    with client.stream("POST", "/command", json={"command": command}) as answer:
        body = b""
        for piece in answer.iter_raw():
            body += piece
            if until in body:
                break
    return body


def test_a_dropped_stream_goes_on_where_it_was(client: httpx.Client) -> None:
    begun = begin(client, "for i in 1 2 3 4 5 6 7 8 9; do echo line$i; sleep 0.1; done; exit 3", b"line3")
    identifier = parse(begun[: begun.index(b"\n\n") + 2])[0]["text"]
    for cut in (len(begun), len(begun) - 7, 0):  # also inside an event
        rest = client.get(f"/command/{identifier}/resume", params={"offset": cut})
        assert rest.headers["content-type"] == "text/event-stream"
        done = Run(begun[:cut] + rest.content)
        assert done.texts() == [f"line{i}" for i in range(1, 10)]
        assert done.value == "3"


def test_a_command_survives_its_client(client: httpx.Client) -> None:
    begun = begin(client, "echo first; sleep 0.3; echo second", b"first")
    identifier = parse(begun)[0]["text"]
    while client.get(f"/command/status/{identifier}").json()["running"]:
        time.sleep(0.02)
    done = Run(client.get(f"/command/{identifier}/resume").content)
    assert done.texts() == ["first", "second"]


@pytest.mark.parametrize(("offset", "status"), [("999999", 416), ("x", 400), ("-1", 400)])
def test_offsets_that_are_none(client: httpx.Client, offset: str, status: int) -> None:
    done = run(client, "true")
    answer = client.get(f"/command/{done.id}/resume", params={"offset": offset})
    assert (answer.status_code, answer.json()["code"]) == (status, "INVALID_REQUEST_BODY")
    assert client.get("/command/nope/resume").status_code == 404


def test_a_gone_client_costs_bounded_memory(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as client:
        begun = begin(client, "echo first; head -c 60000000 /dev/zero | tr '\\0' x | fold -w 100", b"first")
        before = agent.memory()
        identifier = parse(begun[: begun.index(b"\n\n") + 2])[0]["text"]
        while client.get(f"/command/status/{identifier}").json()["running"]:
            time.sleep(0.05)
        assert client.get(f"/command/{identifier}/resume", params={"offset": len(begun)}).status_code == 410
    assert agent.memory() - before < 12 * MEGABYTE


def test_a_slow_client_holds_the_command_up_and_loses_nothing(start_agent: StartAgent) -> None:
    agent = start_agent()
    lines = 400_000
    with (
        agent.client() as client,
        client.stream("POST", "/command", json={"command": f"seq {lines}; echo end >&2"}) as answer,
    ):
        pieces = answer.iter_raw()
        body = [next(pieces)]
        identifier = parse(body[0][: body[0].index(b"\n\n") + 2])[0]["text"]
        before, seen = agent.memory(), 0
        with agent.client() as other:
            for _ in range(20):  # it waits: nobody reads
                time.sleep(0.05)
                seen = max(seen, agent.memory() - before)
            assert other.get(f"/command/status/{identifier}").json()["running"]
        body += pieces
    done = Run(b"".join(body))
    assert done.texts() == [str(i) for i in range(1, lines + 1)]
    assert seen < 12 * MEGABYTE


def test_a_long_output_is_flat_in_memory(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as client:
        run(client, "true")
        before = agent.memory()
        received = 0
        command = "head -c 30000000 /dev/zero | tr '\\0' x"
        with client.stream("POST", "/command", json={"command": command}) as answer:
            for piece in answer.iter_raw():
                received += len(piece)
        assert received > 30_000_000
        assert agent.memory() - before < 20 * MEGABYTE


def test_many_short_commands_leave_nothing_behind(start_agent: StartAgent) -> None:
    agent = start_agent()
    with agent.client() as client:
        for _ in range(100):
            run(client, "true")
        before = agent.memory()
        for _ in range(300):
            run(client, "echo x")
        assert agent.memory() - before < 3 * MEGABYTE
        children = run(
            client, f"cat /proc/{agent.pid}/task/{agent.pid}/children | wc -w; ls /proc/{agent.pid}/fd | wc -l"
        )
    count, descriptors = map(int, children.texts())
    assert count <= 1
    assert descriptors < 20
