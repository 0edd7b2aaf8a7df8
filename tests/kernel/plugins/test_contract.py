"""The plugin contract has a version, its public names are pinned, and a plugin that does not fit is named in a line."""

from __future__ import annotations

import asyncio
import importlib
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tests.support.lifecycle import register as components_of

from shoal.config.loader import Loaded
from shoal.config.settings import Section
from shoal.errors import ConfigError
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin import API_VERSION, PluginContext, hookimpl
from shoal.plugin.interfaces import Authenticator, AuthRequest, Observer, Principal, Progress, Runtime, Transition
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


LATER = "open things in a component's `start`"
UNMARKED = "is never called: it is not marked with @hookimpl"
MEANT = "and no hook has this name; did you mean 'shoal_register_runtimes'?"


class Misspelt:
    @hookimpl
    def shoal_register_observer(self) -> list[Observer]:
        return []


class Argued:
    @hookimpl
    def shoal_register_observers(self, contxt: object) -> list[Observer]:
        return []


class Awaited:
    @hookimpl
    async def shoal_register_observers(self) -> list[Observer]:
        return []


@pytest.mark.parametrize(
    ("plugin", "told"),
    [
        (Misspelt(), "no hook is named 'shoal_register_observer'; did you mean 'shoal_register_observers'?"),
        (Argued(), "the hook shoal_register_observers has no argument 'contxt'; it may take context"),
        (
            Awaited(),
            f"the hook shoal_register_observers must be a plain `def`; it is an `async def`: {LATER}",
        ),
    ],
)
def test_a_hook_that_is_none_is_told_with_what_was_meant(plugin: object, told: str) -> None:
    assert refused(plugin) == f"plugin 'reef': {told}"


class Unmarked:
    def shoal_register_observers(self) -> list[Observer]:
        return []

    def shoal_register_runtime(self) -> list[Runtime]:
        return []


def test_a_function_that_is_named_like_a_hook_and_not_marked_is_warned_of() -> None:
    raw = {"plugins": {"enabled": ["reef"]}}
    assert PluginManager(Loaded(raw=raw), {"reef": Unmarked()}).warnings == [
        f"plugin 'reef': shoal_register_observers {UNMARKED}",
        f"plugin 'reef': shoal_register_runtime {UNMARKED}, {MEANT}",
    ]


class Plain(Authenticator):
    name = "plain"

    def authenticate(self, request: AuthRequest) -> Principal | None:  # type: ignore[override]
        return None

    def start(self) -> None:  # type: ignore[override]
        return None


class Slow(Observer):
    name = "slow"

    async def transition(self, event: Transition) -> None:  # type: ignore[override]
        return None


class Waiting(Authenticator):
    """Returns what its own client gives it to await."""

    name = "waiting"

    def authenticate(self, request: AuthRequest) -> Awaitable[Principal | None]:  # type: ignore[override]
        return asyncio.sleep(0)


COROUTINE, FUNCTION = "a coroutine function (`async def`)", "a plain function that returns at once (`def`)"


def registering(family: str, part: object) -> types.ModuleType:
    @hookimpl
    def registers() -> list[object]:
        return [part]

    made = plugin(Reef())
    vars(made)[f"shoal_register_{family}"] = registers
    return made


def test_a_method_of_the_wrong_kind_is_told_at_the_start() -> None:
    assert refused(registering("authenticators", Plain())).splitlines() == [
        f"plugin 'reef': Plain.authenticate must be {COROUTINE}; it is {FUNCTION}",
        f"plugin 'reef': Plain.start must be {COROUTINE}; it is {FUNCTION}",
    ]
    told = f"plugin 'reef': Slow.transition must be {FUNCTION}; it is {COROUTINE}"
    assert refused(registering("observers", Slow())) == told


def test_a_function_that_returns_something_to_await_will_do() -> None:
    register(registering("authenticators", Waiting()))


class Hasty:
    """Uses in its hook what is there only later."""

    def __init__(self, use: Callable[[PluginContext], object]) -> None:
        self._use = use

    @hookimpl
    def shoal_register_observers(self, context: PluginContext) -> list[Observer]:
        self._use(context)
        return []


class Elsewhere(Section):
    pass


EARLY = (
    "plugin 'reef' failed in hook shoal_register_observers: RuntimeError: "
    "the lifecycle may be used from a component's `start` on, and not in a hook"
)


def own_error(_context: PluginContext) -> None:
    raise ConfigError("no coral\nreef.depth: too deep")


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda context: context.lifecycle.records(), EARLY),
        (lambda context: context.lifecycle.known("x"), EARLY),
        (own_error, "plugin 'reef': no coral\nreef.depth: too deep"),
        (
            lambda context: context.section(Elsewhere),
            "Elsewhere is no section that the plugin 'reef' declares in shoal_config_sections",
        ),
    ],
)
def test_what_a_hook_raises_names_its_plugin(use: Callable[[PluginContext], object], told: str) -> None:
    raw: dict[str, Any] = {"plugins": {"enabled": ["reef", "local_runtime"]}}
    manager = PluginManager(Loaded(raw=raw), {"reef": Hasty(use)})
    with pytest.raises(ConfigError) as caught:
        SandboxLifecycle(manager.settings, manager.register)
    assert str(caught.value) == told
