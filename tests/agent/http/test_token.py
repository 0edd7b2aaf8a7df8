"""The access token guards everything but the open paths."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from tests.agent.commands.streams import run
from tests.agent.program import StartAgent


@pytest.fixture(params=["flag", "variable"])
def guarded(request: pytest.FixtureRequest, start_agent: StartAgent) -> httpx.Client:
    if request.param == "flag":
        return start_agent(["--access-token", "right"], {"EXECD_ACCESS_TOKEN": "beaten by the flag"}).client()
    return start_agent(env={"EXECD_ACCESS_TOKEN": "right"}).client()


def test_requests_without_the_token_are_refused(guarded: httpx.Client) -> None:
    with guarded:
        for headers in ({}, {"X-EXECD-ACCESS-TOKEN": ""}, {"X-EXECD-ACCESS-TOKEN": "wrong"}):
            for path in ("/nope", "/metrics", "/proxy/1/x"):
                answer = guarded.get(path, headers=headers)
                assert answer.status_code == 401
                assert "X-EXECD-ACCESS-TOKEN" in answer.json()["error"]
                assert list(answer.json()) == ["error"]
        assert guarded.get("/ping").status_code == 200
        assert guarded.get("/nope", headers={"x-execd-access-TOKEN": "right"}).status_code == 404


def test_a_redirect_comes_before_the_token(guarded: httpx.Client) -> None:
    with guarded:
        assert guarded.get("/ping/").status_code == 301


def test_the_agent_is_told_a_digest_and_wants_the_token(start_agent: StartAgent) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    with start_agent(env={"EXECD_ACCESS_TOKEN_SHA256": digest, "EXECD_ACCESS_TOKEN": "other"}).client() as client:
        for wrong in ("wrong", "other", digest, ""):
            assert client.get("/nope", headers={"X-EXECD-ACCESS-TOKEN": wrong}).status_code == 401
        assert client.get("/nope", headers={"X-EXECD-ACCESS-TOKEN": "right"}).status_code == 404


def test_the_agent_reaches_itself_with_the_clients_token(start_agent: StartAgent) -> None:
    """As where its port is the only one of a sandbox that is published."""
    agent = start_agent(env={"EXECD_ACCESS_TOKEN": "right"})
    with agent.client() as client:
        own = f"/proxy/{agent.port}/nope"
        assert client.get(own, headers={"X-EXECD-ACCESS-TOKEN": "right"}).status_code == 404
        assert client.get(own).status_code == 401


def test_what_runs_in_the_sandbox_does_not_find_it(start_agent: StartAgent) -> None:
    flag, variable = "a-token-by-flag", "a-token-by-variable"
    by_flag = start_agent(["--access-token", flag])
    by_variable = start_agent(env={"EXECD_ACCESS_TOKEN": variable, "OTHER": "seen"})
    for agent, token in ((by_flag, flag), (by_variable, variable)):
        with agent.client(X_EXECD_ACCESS_TOKEN=token) as client:
            assert client.get("/metrics").status_code != 401
            done = run(client, f"cat /proc/{agent.pid}/environ /proc/{agent.pid}/cmdline | tr '\\0' '\\n'")
        assert "shoal_agent" in done.texts()
        assert token not in "".join(done.texts())
    assert "OTHER=seen" in done.texts()
