"""The agent's bundle as a server gets it: built once, whoever asks meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

from structlog.testing import capture_logs

from shoal_agent.placement import AgentSettings, BuiltinAgent, this_platform


async def test_who_asks_while_it_is_built_waits_for_that(tmp_path: Path) -> None:
    agent = BuiltinAgent(AgentSettings(cache=str(tmp_path / "cache")))
    with capture_logs() as logs:
        at_start = asyncio.create_task(agent.files(this_platform()))
        await asyncio.sleep(0)
        first_create, second_create = await asyncio.gather(agent.files(this_platform()), agent.files(this_platform()))
        assert at_start.done()
    assert first_create == second_create == at_start.result()
    assert [line["event"] for line in logs] == ["the agent is bundled"]


async def test_a_create_that_is_given_up_leaves_the_build_to_the_others(tmp_path: Path) -> None:
    agent = BuiltinAgent(AgentSettings(cache=str(tmp_path / "cache")))
    with capture_logs() as logs:
        at_start = asyncio.create_task(agent.files(this_platform()))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(agent.files(this_platform()))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await at_start is not None
    assert given_up.cancelled()
    assert [line["event"] for line in logs] == ["the agent is bundled"]
