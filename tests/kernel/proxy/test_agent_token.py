"""The agent's token on its way to the agent: added for whoever was let in, and for nobody else."""

from __future__ import annotations

import pytest
from tests.kernel.proxy.harness import Sandboxes

from shoal.plugin.interfaces import AGENT_PORT, AGENT_TOKEN_HEADER, HostTarget
from shoal.proxy.headers import read_request
from shoal.proxy.resolve import resolve
from shoal.proxy.target import host_target, parse_target

TOKEN = (AGENT_TOKEN_HEADER.lower().encode(), b"t0k3n")


async def added(host: HostTarget | None) -> list[tuple[bytes, bytes]]:
    sandboxes = Sandboxes(one="127.0.0.1:1")
    sandboxes.headers = [(b"x-workload", b"w"), TOKEN]
    target = parse_target(b"/sandboxes/one/proxy/44772/ping") if host is None else host_target(host, b"/ping")
    assert target is not None
    return (await resolve(sandboxes, target, read_request([], own_host=False)))[1]


@pytest.mark.parametrize("host", [None, HostTarget("one", AGENT_PORT), HostTarget("one", AGENT_PORT, signed=True)])
async def test_whoever_was_let_in_need_not_know_it(host: HostTarget | None) -> None:
    assert TOKEN in await added(host)


async def test_an_open_host_opens_no_agent() -> None:
    assert await added(HostTarget("one", AGENT_PORT, open=True)) == [(b"x-workload", b"w")]
