"""What a plugin raises or answers wrongly while a request is served: contained, and logged with the plugin's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from falcon.asgi import Request, Response
from structlog.testing import capture_logs

from shoal.errors import Forbidden, NotFound
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import (
    Authenticator,
    AuthRequest,
    Endpoint,
    EndpointQuery,
    Ingress,
    Operation,
    Policy,
    PolicyRequest,
    Principal,
    Resources,
    Route,
)
from shoal.testing import server_with

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


class Guard(Authenticator):
    name = "guard"

    def __init__(self, given: Any) -> None:
        self._given = given

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        return given(self._given)  # type: ignore[no-any-return]

    @hookimpl
    def shoal_register_authenticators(self) -> list[Authenticator]:
        return [self]


class Rule(Policy):
    name = "rule"

    def __init__(self, given: Any) -> None:
        self._given = given

    async def check(self, request: PolicyRequest) -> None:
        return given(self._given)  # type: ignore[no-any-return]

    @hookimpl
    def shoal_register_policies(self) -> list[Policy]:
        return [self]


class Gate(Ingress):
    name, priority = "gate", 10_000

    def __init__(self, given: Any) -> None:
        self._given = given

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        return given(self._given)  # type: ignore[no-any-return]

    @hookimpl
    def shoal_register_ingresses(self) -> list[Ingress]:
        return [self]


class Coral(Resources):
    name = "corals"

    def __init__(self, given: Any) -> None:
        self._given = given

    def routes(self) -> Sequence[Route]:
        return [Route("/coral", self)]

    @Operation(name="readCoral", summary="Read.")
    async def on_get(self, _req: Request, _resp: Response) -> None:
        given(self._given)

    @hookimpl
    def shoal_register_resources(self) -> list[Resources]:
        return [self]


def given(answer: Any) -> Any:
    if isinstance(answer, BaseException):
        raise answer
    return answer


async def asked(plugin: Any, path: str) -> tuple[httpx.Response, list[Any]]:
    """The answer to a GET, and what was logged of the plugin. ``{id}`` in the path is a sandbox's."""
    with capture_logs() as logs:
        async with server_with(reef=plugin) as server, httpx.AsyncClient(base_url=server.url) as client:
            if "{id}" in path:
                made = (await client.post("/v1/sandboxes", json=BODY)).json()["id"]
                path = path.replace("{id}", made)
            answer = await client.get(path)
    return answer, [entry["error"] for entry in logs if entry.get("plugin") == "reef" and "error" in entry]


LIST, PORT = "/v1/sandboxes", "/v1/sandboxes/{id}/endpoints/8080"
ODD = "failed in an unforeseen way: ValueError: no coral"
ENDED = "tried to end the server: SystemExit: 3"


@pytest.mark.parametrize(
    ("plugin", "path", "line"),
    [
        (Guard(ValueError("no coral")), LIST, f"the authenticator 'guard' {ODD}"),
        (Guard(SystemExit(3)), LIST, f"the authenticator 'guard' {ENDED}"),
        (
            Guard("me"),
            LIST,
            "the authenticator 'guard' returned str from authenticate, and not a Principal or None",
        ),
        (Rule(ValueError("no coral")), LIST, f"the policy 'rule' {ODD}"),
        (Rule(True), LIST, "the policy 'rule' returned bool from check, and not None: refused"),
        (Coral(ValueError("no coral")), "/coral", f"the resources 'corals' {ODD}"),
        (Coral(SystemExit(3)), "/v1/coral", f"the resources 'corals' {ENDED}"),
        (Gate(ValueError("no coral")), PORT, f"the ingress 'gate' {ODD}"),
        (Gate("here:80"), PORT, "the ingress 'gate' returned str from endpoint, and not an Endpoint or None"),
        (
            Gate(Endpoint(endpoint="http://here:80")),
            PORT,
            "the ingress 'gate' gave an endpoint that is not host[:port][/path], without a scheme",
        ),
        (
            Gate(Endpoint(endpoint="here", headers={"a": 1})),  # type: ignore[dict-item]
            PORT,
            "the ingress 'gate' gave an endpoint whose headers are not a dict of texts",
        ),
    ],
)
async def test_what_a_plugin_must_not_do_is_a_500_with_its_name_in_the_log(plugin: Any, path: str, line: str) -> None:
    answer, lines = await asked(plugin, path)
    assert (answer.status_code, answer.json()["code"]) == (500, "GENERAL::INTERNAL_ERROR")
    assert "coral" not in answer.json()["message"]
    assert lines == [f"plugin 'reef': {line}"]


@pytest.mark.parametrize(
    ("plugin", "path", "line"),
    [
        (Rule(Forbidden("shut", "Closed.")), LIST, "the policy 'rule' raised Forbidden with the code 'shut'"),
        (
            Coral(NotFound("no coral", "None.")),
            "/coral",
            "the resources 'corals' raised NotFound with the code 'no coral'",
        ),
    ],
)
async def test_a_code_of_another_form_refuses_all_the_same(plugin: Any, path: str, line: str) -> None:
    answer, lines = await asked(plugin, path)
    assert answer.status_code in (403, 404)
    assert lines == [f"plugin 'reef': {line}: a code has the form SCOPE::REASON"]


async def test_what_a_plugin_refuses_in_the_right_form_is_not_logged_as_its_mistake() -> None:
    answer, lines = await asked(Coral(NotFound("CORAL::NONE", "None.")), "/coral")
    assert (answer.status_code, answer.json()["code"], lines) == (404, "CORAL::NONE", [])
