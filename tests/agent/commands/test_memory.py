"""A sandbox that runs out of memory: who dies, and who says so."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tests.agent.code.container import agent_in_container
from tests.agent.commands.streams import run

from shoal_agent.oom import OFFER, OutOfMemory

MEMORY = "64m"
"""Of the container."""
MANY = "for i in $(seq 20); do (x=$(head -c 5000000 /dev/zero | tr '\\0' x); sleep 1) & done; wait; echo done"
"""Processes each of which is smaller than the agent."""


def test_children_are_killed_before_the_agent(client: httpx.Client) -> None:
    score = min(int(Path("/proc/self/oom_score_adj").read_text()) + OFFER, 1000)
    wait = f"until [ $(cat /proc/self/oom_score_adj) = {score} ]; do :; done; echo so"
    assert run(client, wait, timeout=20000).texts() == ["so"]


def test_a_kill_is_a_reason_once_and_not_for_ever() -> None:
    now = 7
    oom = OutOfMemory(lambda: now)
    assert not oom.struck()
    now = 8
    oom.tick()
    assert oom.struck(), "it was killed, and ended only after the tick"
    assert not oom.struck()
    now = 9
    oom.tick()
    oom.tick()
    assert not oom.struck()


@pytest.mark.needs("docker")
def test_the_agent_survives_and_says_so() -> None:
    with agent_in_container({}, memory=MEMORY) as client:
        killed = run(client, "kill -KILL $$").error
        assert killed is not None
        assert killed["traceback"] == ["signal: killed"]
        large = run(client, "exec tail /dev/zero").error
        assert large is not None
        assert (large["evalue"], large["traceback"]) == ("-1", ["signal: killed (out of memory)"])
        below = run(client, "tail /dev/zero; exit $?").error
        assert below is not None
        assert (below["evalue"], below["traceback"]) == ("137", ["exit status 137 (out of memory)"])
        many = run(client, MANY)
        assert many.texts() == ["done"]
        assert any("Killed" in text for text in many.texts("stderr"))
