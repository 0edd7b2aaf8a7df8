"""An agent that gets its identity after its start: `docs/wire/execd.md` section 12."""

from __future__ import annotations

import re
from typing import Any

from shoal_agent.agent import RunningAgent
from shoal_agent.http.errors import NOT_SUPPORTED, ApiError, invalid_body
from shoal_agent.http.fields import Fields
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, Response, json_response
from shoal_agent.http.routes import Routes
from shoal_agent.http.token import OPEN

ALREADY_INITIALIZED = "ALREADY_INITIALIZED"
_HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME = re.compile(r"[^=\0]+")


class Binding:
    """Whose the agent is. Nothing but `/ping`, `/ready` and `/internal/init` is served before that is known."""

    def __init__(self, agent: RunningAgent, bound: bool) -> None:
        self._agent = agent
        self._bound = bound
        self._identity: dict[str, Any] = {}

    def gate(self, request: Request) -> Response | None:
        """503 before the agent is bound."""
        if self._bound or request.path in OPEN:
            return None
        return json_response({"error": "the agent is not initialized yet: POST /internal/init"}, 503)

    async def ready(self, request: Request) -> Answer:
        """Whether it is bound, and to what."""
        return json_response({"initialized": self._bound, **self._identity}, 200 if self._bound else 503)

    async def initialize(self, request: Request) -> Answer:
        """Binds it, once. Raises `ApiError` 400, 409, 501; the agent is then as it was."""
        fields = await request.fields()
        if self._bound:
            raise ApiError(409, ALREADY_INITIALIZED, "the agent is initialized already")
        identity = {"sandboxId": _present(fields.text("sandboxId")), "generation": fields.integer("generation", 0)}
        token, envs = _token(fields.text("accessTokenHash", "")), _variables(fields)
        fields.fields("lifecycle")
        fields.fields("telemetry")
        _check_policy(fields.text("entrypointPolicy", "keep"))
        if token:
            self._agent.token.expect_sha256(token)
        self._agent.environment.bound.update(envs)
        self._identity, self._bound = identity, True
        return json_response({"initialized": True, **identity})


def _present(sandbox: str) -> str:
    if not sandbox:
        raise invalid_body("sandboxId must not be empty")
    return sandbox


def _token(text: str) -> str:
    """The digest in lower case; empty for no token."""
    match = _HASH.fullmatch(text)
    if text and match is None:
        raise invalid_body("accessTokenHash must be sha256: and 64 hexadecimal digits")
    return match[1].lower() if match is not None else ""


def _variables(fields: Fields) -> dict[str, str]:
    envs = fields.text_map("envs")
    for name, value in envs.items():
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise invalid_body(f"envs: {name!r} cannot be a variable")
    return envs


def _check_policy(policy: str) -> None:
    if policy not in ("keep", "restart"):
        raise invalid_body(f"entrypointPolicy must be keep or restart, not {policy!r}")
    if policy == "restart":
        raise ApiError(501, NOT_SUPPORTED, "this agent does not restart the entrypoint: entrypointPolicy must be keep")


def add_routes(agent: RunningAgent, routes: Routes) -> None:
    """`/ready`, and `/internal/init` where the agent was started for it."""
    binding = Binding(agent, bound=not agent.options.runtime_init)
    routes.get("/ready", binding.ready)
    if agent.options.runtime_init:
        routes.post("/internal/init", binding.initialize)
        agent.gates.insert(0, binding.gate)
