"""The plugin contract has a version, its public names are pinned, and a plugin that does not fit is named in a line."""

from __future__ import annotations

import importlib
import types
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.lifecycle import register as components_of

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin import API_VERSION, PluginContext, hookimpl
from shoal.plugin.interfaces import Observer, Progress, Runtime, Transition
from shoal.plugin.manager import PluginManager, survey

PUBLIC = {
    "shoal.plugin": [
        "API_VERSION",
        "Component",
        "ConfigSection",
        "Lifecycle",
        "PluginContext",
        "Transition",
        "hookimpl",
    ],
    "shoal.plugin.interfaces": [
        "AGENT_PORT",
        "AGENT_TOKEN_HEADER",
        "AGENT_TOKEN_LABEL",
        "Access",
        "Agent",
        "AgentFiles",
        "AuthRequest",
        "Authenticator",
        "Capabilities",
        "Command",
        "Component",
        "Endpoint",
        "EndpointQuery",
        "ForkedAgent",
        "Held",
        "HostTarget",
        "IdempotencyKey",
        "Ingress",
        "LogQuery",
        "NativePools",
        "Networking",
        "Observer",
        "Operation",
        "POOL_LABEL",
        "PROXY_OPERATION",
        "Policy",
        "PolicyRequest",
        "PolicyTarget",
        "Principal",
        "Progress",
        "REQUEST_LABEL",
        "Renewal",
        "Resources",
        "Route",
        "Runtime",
        "SECURE_ACCESS_HEADER",
        "SharedTruth",
        "SnapshotCatalogue",
        "SnapshotRecord",
        "Store",
        "TEXT",
        "Transition",
        "Transport",
        "WEBSOCKET_NEWS_SECONDS",
        "WEBSOCKET_OPERATION",
        "query_parameter",
    ],
    "shoal.http": ["Body", "Query", "answer_json", "answer_text", "ask_policies", "is_visible", "principal_of"],
    "shoal.kit": [
        "Backoff",
        "BoundedThreads",
        "DueClock",
        "Feed",
        "MASK",
        "QuantityError",
        "hindrance",
        "mask",
        "mask_all",
        "parse_bytes",
        "parse_cores",
        "parse_quantity",
        "secret_values",
    ],
    "shoal.errors": [
        "BadGateway",
        "ConfigError",
        "Conflict",
        "EngineFailure",
        "FieldProblem",
        "Forbidden",
        "GatewayTimeout",
        "HeadTooLarge",
        "InternalError",
        "InvalidRequest",
        "LoopDetected",
        "MethodNotAllowed",
        "NotFound",
        "NotSupported",
        "PayloadTooLarge",
        "RateLimited",
        "RequestTimeout",
        "ShoalError",
        "StoreFull",
        "Unauthenticated",
        "Unavailable",
        "ValidationFailed",
    ],
}
"""A name that is added here raises the minor version; one that goes was retired first (docs/plugins.md, "Versions")."""


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_pinned(module: str) -> None:
    found = importlib.import_module(module)
    assert sorted(found.__all__) == PUBLIC[module]
    assert [name for name in found.__all__ if not hasattr(found, name)] == []


class Reef(Runtime):
    name = "reef"
    scope = "REEF"

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        return Workload(id=plan.id, phase=Phase.RUNNING)

    async def delete(self, sandbox_id: str) -> None:
        return None

    async def list(self) -> list[Workload]:
        return []

    async def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return
        yield


class Diary(Observer):
    name = "diary"

    def transition(self, transition: Transition) -> None:
        return None


def plugin(runtime: Runtime, observer: Observer | None = None, **attributes: Any) -> types.ModuleType:
    @hookimpl
    def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
        return [runtime]

    @hookimpl
    def shoal_register_observers(context: PluginContext) -> list[Observer]:
        return [observer] if observer else []

    hooks = {one.__name__: one for one in (shoal_register_runtimes, shoal_register_observers)}
    made = types.ModuleType("reef")
    vars(made).update({**hooks, **attributes})
    return made


def register(made: object) -> None:
    loaded = Loaded(raw={"plugins": {"enabled": ["reef"]}})
    components_of(PluginManager(loaded, {"reef": made}))


def refused(made: object) -> str:
    with pytest.raises(ConfigError) as caught:
        register(made)
    return str(caught.value)


def test_a_plugin_that_fits() -> None:
    register(plugin(Reef(), Diary()))


@pytest.mark.parametrize("needed", ["1.0", API_VERSION])
def test_a_version_that_is_here(needed: str) -> None:
    register(plugin(Reef(), SHOAL_API_VERSION=needed))


@pytest.mark.parametrize(
    ("needed", "advice"), [("1.999", "update shoal"), ("2.0", "update shoal"), ("0.9", "update the plugin")]
)
def test_another_version_is_one_line(needed: str, advice: str) -> None:
    line = f"plugin 'reef' needs version {needed} of the plugin API, and this server has {API_VERSION}: {advice}"
    assert refused(plugin(Reef(), SHOAL_API_VERSION=needed)) == line


@pytest.mark.parametrize("needed", ["", "1", "1.x", "v1.0", "1.0.0", 1.0, 1, ("1", "0")])
def test_a_version_that_is_none_is_one_line(needed: object) -> None:
    line = refused(plugin(Reef(), SHOAL_API_VERSION=needed))
    assert line == f"plugin 'reef': SHOAL_API_VERSION must be a text such as {API_VERSION!r}"


def test_a_plugin_of_another_version_matters_only_when_enabled() -> None:
    made = plugin(Reef(), SHOAL_API_VERSION="2.0")
    assert "reef" not in PluginManager(Loaded(raw={}), {"reef": made}).enabled
    [status] = [one for one in survey(Loaded(raw={}), {"reef": made}) if one.name == "reef"]
    assert "needs version 2.0" in (status.failure or "")


BARE = [("name", None), ("name", " "), ("name", 5), ("scope", None), ("scope", "")]


@pytest.mark.parametrize(("attribute", "value"), BARE)
def test_a_runtime_without_name_or_scope(attribute: str, value: object) -> None:
    kind = type("Bare", (Reef,), {attribute: value})
    assert refused(plugin(kind())) == (
        f"plugin 'reef': Bare.{attribute} is missing: every Runtime has a {attribute}, a text that is not empty"
    )


def test_any_component_without_name() -> None:
    class Nameless(Observer):
        def transition(self, transition: Transition) -> None:
            return None

    assert refused(plugin(Reef(), Nameless())).startswith("plugin 'reef': Nameless.name is missing: every Observer has")


def test_a_method_that_does_not_take_what_is_passed() -> None:
    class Old(Reef):
        async def create(self, plan: WorkloadPlan) -> Workload:  # type: ignore[override]  # as it was once
            return Workload(id=plan.id, phase=Phase.RUNNING)

    line = refused(plugin(Old()))
    assert line.startswith("plugin 'reef': Old.create must take (self, plan")
    assert "\n" not in line


def test_a_method_may_take_more() -> None:
    class Wide(Reef):
        async def delete(self, *arguments: Any, **more: Any) -> None:
            return None

    register(plugin(Wide()))
