"""An agent that is told whose it is after its start, and one that knows it; isolated sessions."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

import httpx
import pytest
from tests.agent.program import AgentProcess, StartAgent

INIT: dict[str, Any] = {"sandboxId": "sb-1", "generation": 3, "entrypointPolicy": "keep"}


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_nothing_is_served_before_it_is_known(start_agent: StartAgent) -> None:
    with start_agent(["--runtime-init"]).client() as http:
        assert http.get("/ping").status_code == 200
        answer = http.get("/ready")
        assert (answer.status_code, answer.json()) == (503, {"initialized": False})
        for method, path in (("GET", "/files/info"), ("POST", "/command"), ("GET", "/nothing"), ("GET", "/proxy/1/")):
            answer = http.request(method, path)
            assert (answer.status_code, list(answer.json())) == (503, ["error"])
        answer = http.post("/internal/init", json=INIT)
        assert (answer.status_code, answer.json()["sandboxId"]) == (200, "sb-1")
        assert http.get("/ready").json() == {"initialized": True, "sandboxId": "sb-1", "generation": 3}
        assert http.get("/files/info").json() == {}
        assert code(http.post("/internal/init", json=INIT)) == (409, "ALREADY_INITIALIZED")


def test_it_brings_a_token_and_variables(start_agent: StartAgent) -> None:
    agent = start_agent(env={"EXECD_RUNTIME_INIT": "1"})
    digest = hashlib.sha256(b"sesame").hexdigest().upper()
    with agent.client() as http:
        body = {**INIT, "accessTokenHash": f"sha256:{digest}", "envs": {"GREETING": "hello $HOME"}}
        assert http.post("/internal/init", json=body).status_code == 200
        assert http.get("/files/info").status_code == 401
        assert http.get("/files/info", headers={"X-EXECD-ACCESS-TOKEN": "wrong"}).status_code == 401
        assert http.get("/ready").status_code == 200
    with agent.client(X_EXECD_ACCESS_TOKEN="sesame") as http:
        assert http.get("/files/info").status_code == 200
        stream = http.post("/command", json={"command": 'echo "$GREETING"'}).text
        events = [json.loads(line) for line in stream.splitlines() if line]
        assert [event["text"] for event in events if event["type"] == "stdout"] == ["hello $HOME"]


@pytest.mark.parametrize(
    "more",
    [
        {"sandboxId": ""},
        {"sandboxId": 1},
        {"generation": "3"},
        {"generation": -1},
        {"entrypointPolicy": "stop"},
        {"accessTokenHash": "sesame"},
        {"accessTokenHash": "sha256:abc"},
        {"envs": {"A": 1}},
        {"envs": {"A=B": "x"}},
        {"envs": {"": "x"}},
        {"lifecycle": []},
        {"telemetry": "x"},
    ],
)
def test_a_bad_request_binds_nothing(start_agent: StartAgent, more: dict[str, Any]) -> None:
    with start_agent(["--runtime-init"]).client() as http:
        assert code(http.post("/internal/init", json={**INIT, **more})) == (400, "INVALID_REQUEST_BODY")
        assert http.get("/ready").status_code == 503
        assert http.post("/internal/init", json=INIT).status_code == 200


def test_the_entrypoint_is_not_restarted(start_agent: StartAgent) -> None:
    with start_agent(["--runtime-init"]).client() as http:
        answer = http.post("/internal/init", json={**INIT, "entrypointPolicy": "restart"})
        assert code(answer) == (501, "NOT_SUPPORTED")
        assert http.get("/ready").status_code == 503


def test_only_one_of_many_binds_it(start_agent: StartAgent) -> None:
    agent = start_agent(["--runtime-init"])
    statuses: list[int] = []

    def bind(number: int) -> None:
        with agent.client() as http:
            statuses.append(http.post("/internal/init", json={**INIT, "sandboxId": f"sb-{number}"}).status_code)

    threads = [threading.Thread(target=bind, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [409] * 7


def test_without_the_flag_there_is_nothing_to_bind(agent: AgentProcess) -> None:
    with agent.client() as http:
        assert http.get("/ready").json() == {"initialized": True}
        assert http.post("/internal/init", json=INIT).status_code == 404


def test_there_are_no_isolated_sessions(agent: AgentProcess) -> None:
    with agent.client() as http:
        found = http.get("/v1/isolated/capabilities").json()
        assert found["available"] is False
        assert found["message"]
        for method, path in (
            ("POST", "session"),
            ("GET", "sessions"),
            ("GET", "session/x"),
            ("DELETE", "session/x"),
            ("POST", "session/x/run"),
            ("GET", "session/x/runs/y/logs"),
            ("GET", "session/x/files/download"),
        ):
            assert code(http.request(method, f"/v1/isolated/{path}")) == (501, "NOT_SUPPORTED")
