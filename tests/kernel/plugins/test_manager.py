"""Which plugins are enabled, what they register, and how each way of failing is told."""

from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.lifecycle.fakes import MemoryStore, StoreContent
from tests.support.lifecycle import register as components_of

from shoal.config.loader import Loaded
from shoal.config.settings import Section
from shoal.errors import ConfigError
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.components import Components
from shoal.plugin.interfaces import Endpoint, EndpointQuery, Ingress, Progress, Runtime, Store
from shoal.plugin.manager import PluginManager, survey


class SharkSection(Section):
    teeth: int = 3


class SharkRuntime(Runtime):
    name = "shark"
    scope = "SHARK"

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        return Workload(id=plan.id, phase=Phase.RUNNING)

    async def delete(self, sandbox_id: str) -> None:
        return None

    async def list(self) -> list[Workload]:
        return []

    async def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return
        yield


class SharkPlugin:
    """A whole plugin of a stranger: a section, a wish to be enabled, and a runtime."""

    seen: SharkSection

    @hookimpl
    def shoal_wanted(self, config: Mapping[str, Any]) -> bool:
        runtime = config.get("runtime", {})
        return isinstance(runtime, dict) and runtime.get("type") == "shark"

    @hookimpl
    def shoal_config_sections(self) -> list[ConfigSection]:
        return [ConfigSection("shark", SharkSection)]

    @hookimpl
    def shoal_register_runtimes(self, context: PluginContext) -> list[Runtime]:
        self.seen = context.section(SharkSection)
        return [SharkRuntime()]


def manager(raw: dict[str, Any], **plugins: Any) -> PluginManager:
    return PluginManager(Loaded(raw=raw), plugins)


def register(raw: dict[str, Any], **plugins: Any) -> Components:
    return components_of(manager(raw, **plugins))


def told(raw: dict[str, Any], **plugins: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        register(raw, **plugins)
    return str(caught.value)


def test_a_strangers_plugin_is_chosen_by_the_configuration() -> None:
    shark = SharkPlugin()
    components = register({"runtime": {"type": "shark"}, "shark": {"teeth": 300}}, shark_runtime=shark)
    assert components.default_runtime == "shark"
    assert isinstance(components.runtimes["shark"], SharkRuntime)
    assert shark.seen == SharkSection(teeth=300)


def test_a_plugin_that_is_not_wanted_is_not_enabled() -> None:
    assert "shark_runtime" not in manager({}, shark_runtime=SharkPlugin()).enabled


def test_the_list_decides_alone() -> None:
    raw = {"plugins": {"enabled": ["shark_runtime"]}}
    assert manager(raw, shark_runtime=SharkPlugin()).enabled == ["shark_runtime", "sqlite_store"]


def test_without_a_word_of_its_own_a_plugin_is_enabled_by_its_section_or_by_name() -> None:
    class Quiet:
        @hookimpl
        def shoal_config_sections(self) -> list[ConfigSection]:
            return [ConfigSection("quiet", SharkSection)]

    assert "quiet_one" in manager({"quiet": {}}, quiet_one=Quiet()).enabled
    assert "quiet_one" not in manager({}, quiet_one=Quiet()).enabled
    assert "quiet_one" in manager({"runtime": {"type": "quiet_one"}}, quiet_one=Quiet()).enabled


def test_unknown_plugin_names_the_nearest() -> None:
    message = told({"plugins": {"enabled": ["shark_runtme"]}}, shark_runtime=SharkPlugin())
    assert message == "plugins.enabled: no installed plugin is named 'shark_runtme'; did you mean 'shark_runtime'?"


def test_plugins_enabled_must_be_a_list() -> None:
    assert told({"plugins": {"enabled": "shark"}}) == "plugins.enabled: expected `array | null`, got `str`"


def test_unknown_runtime_names_what_there_is() -> None:
    message = told({"runtime": {"type": "shrak"}, "plugins": {"enabled": ["s"]}}, s=SharkPlugin())
    assert message == "runtime.type: no enabled plugin provides the runtime 'shrak'; did you mean 'shark'?"


def test_several_runtimes_need_a_choice() -> None:
    class Other(SharkRuntime):
        name = "other"

    class OtherPlugin:
        @hookimpl
        def shoal_register_runtimes(self) -> list[Runtime]:
            return [Other()]

    raw: dict[str, Any] = {"plugins": {"enabled": ["a", "b"]}}
    assert told(raw, a=SharkPlugin(), b=OtherPlugin()).startswith("runtime.type: required, because several")
    components = register({**raw, "runtime": {"type": "other"}}, a=SharkPlugin(), b=OtherPlugin())
    assert components.default_runtime == "other"
    assert sorted(components.runtimes) == ["other", "shark"]


def test_no_runtime_at_all() -> None:
    assert told({"plugins": {"enabled": []}}).startswith("no enabled plugin provides a runtime")


def test_two_runtimes_of_one_name() -> None:
    raw = {"plugins": {"enabled": ["a", "b"]}}
    assert told(raw, a=SharkPlugin(), b=SharkPlugin()) == "plugins 'a' and 'b' both register the runtime 'shark'"


def test_a_hook_with_an_unknown_argument_is_quoted() -> None:
    class Wrong:
        @hookimpl
        def shoal_register_observers(self, kontext: object) -> list[object]:
            return []

    message = told({"plugins": {"enabled": ["wrong"]}}, wrong=Wrong())
    assert "plugin 'wrong'" in message
    assert "shoal_register_observers" in message
    assert "kontext" in message
    assert "\n" not in message


def test_every_unknown_plugin_is_told() -> None:
    assert len(told({"plugins": {"enabled": ["nothing_like_it", "nor_this", "nor_this"]}}).splitlines()) == 2


def test_one_object_under_two_names() -> None:
    shark = SharkPlugin()
    message = told({"plugins": {"enabled": ["a", "b"]}}, a=shark, b=shark)
    assert message == "plugin 'b' is the same object as another enabled plugin"


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (SharkRuntime(), "SharkRuntime"),
        (["shark", 1], "a list of int, str"),
        ("shark", "str"),
        ([SharkRuntime], "a list of the class SharkRuntime itself"),
    ],
)
def test_a_hook_that_returns_something_else(answer: object, got: str) -> None:
    class Wrong:
        @hookimpl
        def shoal_register_runtimes(self) -> object:
            return answer

    message = told({"plugins": {"enabled": ["wrong"]}}, wrong=Wrong())
    assert (
        message == f"plugin 'wrong': the hook shoal_register_runtimes must return a list of Runtime; it returned {got}"
    )


def test_sections_that_are_none() -> None:
    class Wrong:
        @hookimpl
        def shoal_config_sections(self) -> object:
            return [SharkSection]

    message = told({"plugins": {"enabled": ["wrong"]}}, wrong=Wrong())
    assert message == (
        "plugin 'wrong': the hook shoal_config_sections must return a list of ConfigSection; "
        "it returned a list of the class SharkSection itself"
    )


class Unread(Section):
    depth: "Fathoms" = 1  # type: ignore[name-defined]  # noqa: F821, UP037 - as where only a type checker imports it


@pytest.mark.parametrize(
    ("section", "told_of"),
    [
        (ConfigSection("x", dict), "ConfigSection('x', …): the kind must be a msgspec Struct; it is dict"),  # type: ignore[arg-type]
        (ConfigSection("x", 1), "ConfigSection('x', …): the kind must be a msgspec Struct; it is int"),  # type: ignore[arg-type]
        (
            ConfigSection("x", Unread),
            "ConfigSection('x', …): Unread cannot be read: NameError: name 'Fathoms' is not defined",
        ),
        (
            ConfigSection("server", SharkSection),
            "ConfigSection('server', …): [server] is the server's own; take another name, such as 'odd'",
        ),
        (
            ConfigSection("x..y", SharkSection),
            "ConfigSection('x..y', …): the name must be that of a table, such as 'firefly' or 'firefly.lamp'",
        ),
    ],
)
def test_a_section_that_cannot_be_one(section: ConfigSection, told_of: str) -> None:
    class Odd:
        @hookimpl
        def shoal_config_sections(self) -> list[ConfigSection]:
            return [section]

    assert told({"plugins": {"enabled": ["odd"]}}, odd=Odd()) == f"plugin 'odd': {told_of}"
    if section.name == "x":
        assert told({"x": {}}, odd=Odd()) == f"plugin 'odd': {told_of}"
    assert "odd" not in manager({"server": {}}, odd=Odd()).enabled


def test_a_store_that_is_none() -> None:
    class Wrong:
        @hookimpl
        def shoal_register_store(self) -> object:
            return ["store"]

    message = told({"plugins": {"enabled": ["wrong"]}}, wrong=Wrong())
    assert (
        message
        == "plugin 'wrong': the hook shoal_register_store must return a Store or None; it returned a list of str"
    )


def test_a_store_that_no_plugin_provides() -> None:
    raw = {"plugins": {"enabled": ["s"]}, "store": {"type": "postgresql", "postgresql": {"dsn": "hunter2"}}}
    assert told(raw, s=SharkPlugin()) == (
        "store.type: no enabled plugin provides the store 'postgresql'; known: sqlite"
    )


class Stores:
    """Registers stores of any name that `store.type` may have."""

    def __init__(self, name: str) -> None:
        self.store = MemoryStore(StoreContent())
        self.store.name = name  # type: ignore[misc]  # one class, several names

    @hookimpl
    def shoal_register_store(self, context: PluginContext) -> Store | None:
        return self.store


def test_store_type_names_a_store_of_any_plugin() -> None:
    pearls, sand = Stores("pearls"), Stores("sand")
    raw: dict[str, Any] = {"plugins": {"enabled": ["a", "b", "s"]}, "store": {"type": "sand"}}
    components = register(raw, a=pearls, b=sand, s=SharkPlugin())
    assert components.store is sand.store
    assert components.plugins[id(sand.store)] == "b"


def test_the_default_store_is_a_plugin_with_no_other_privilege() -> None:
    components = register({"plugins": {"enabled": ["s"]}}, s=SharkPlugin())
    assert components.store is not None
    assert (components.store.name, components.plugins[id(components.store)]) == ("sqlite", "sqlite_store")
    assert "sqlite_store" not in manager({"store": {"type": "sand"}}, sand_store=Stores("sand")).enabled


def test_the_plugin_of_a_store_is_enabled_by_its_type() -> None:
    raw: dict[str, Any] = {"plugins": {"enabled": ["s"]}, "store": {"type": "sand"}}
    given: dict[str, Any] = {"sand_store": Stores("sand"), "s": SharkPlugin()}
    assert manager(raw, **given).enabled == ["s", "sand_store"]
    assert manager({"store": {"type": "sand"}}, **given).enabled.count("sand_store") == 1
    found = {status.name: status for status in survey(Loaded(raw=raw), given)}
    assert (found["sand_store"].enabled, found["sand_store"].why) == (True, "named by store.type")
    assert not found["sqlite_store"].enabled


def test_two_stores_of_one_name_stop_the_start() -> None:
    raw: dict[str, Any] = {"plugins": {"enabled": ["a", "b", "s"]}, "store": {"type": "sand"}}
    message = told(raw, a=Stores("sand"), b=Stores("sand"), s=SharkPlugin())
    assert message == "plugins 'a' and 'b' both register the store 'sand'"
    raw = {"plugins": {"enabled": ["mine", "s"]}}
    message = told(raw, mine=Stores("sqlite"), s=SharkPlugin())
    assert message == "plugins 'mine' and 'sqlite_store' both register the store 'sqlite'"


def test_a_store_that_is_like_one_that_there_is() -> None:
    raw: dict[str, Any] = {"plugins": {"enabled": ["a", "s"]}, "store": {"type": "sands"}}
    message = told(raw, a=Stores("sand"), s=SharkPlugin())
    assert message == "store.type: no enabled plugin provides the store 'sands'; did you mean 'sand'?"


class Tail:
    """Owns a table inside another one, as a gateway plugin does."""

    @hookimpl
    def shoal_config_sections(self) -> list[ConfigSection]:
        return [ConfigSection("shark.tail", SharkSection)]


def test_a_table_inside_another_enables_its_plugin_alone() -> None:
    assert "tail" in manager({"shark": {"tail": {"teeth": 1}}}, tail=Tail()).enabled
    assert "tail" not in manager({"runtime": {"type": "shark"}, "shark": {}}, tail=Tail(), s=SharkPlugin()).enabled


def test_what_stands_around_a_table_inside_another_is_checked() -> None:
    message = told({"shark": {"teeth": 1, "tail": {}}}, tail=Tail())
    assert message == "shark.teeth: unknown key; known: tail"
    assert told({"plugins": {"enabled": ["tail"]}, "shark": 3}, tail=Tail()) == "shark: expected a table"


@pytest.mark.parametrize("enabled", [["s"], []])
def test_a_table_inside_another_names_the_plugin_that_is_not_enabled(enabled: list[str]) -> None:
    message = told({"plugins": {"enabled": enabled}, "shark": {"tail": {}}}, tail=Tail(), s=SharkPlugin())
    assert "belongs to the plugin" in message
    assert "'tail'" in message or enabled == []


def test_a_misspelt_hook_is_found() -> None:
    class Wrong:
        @hookimpl
        def shoal_register_obsevers(self) -> list[object]:
            return []

    message = told({"plugins": {"enabled": ["wrong"]}}, wrong=Wrong())
    assert "shoal_register_obsevers" in message


def test_a_hook_that_fails_names_plugin_and_hook() -> None:
    class Wrong:
        @hookimpl
        def shoal_register_observers(self, context: PluginContext) -> list[object]:
            raise RuntimeError("teeth")

    message = told({"plugins": {"enabled": ["wrong", "s"]}}, wrong=Wrong(), s=SharkPlugin())
    assert message == "plugin 'wrong' failed in hook shoal_register_observers: RuntimeError: teeth"


def test_a_section_that_was_not_declared() -> None:
    class Wrong:
        @hookimpl
        def shoal_register_observers(self, context: PluginContext) -> list[object]:
            context.section(SharkSection)
            return []

    class Undeclared:
        @hookimpl
        def shoal_register_runtimes(self) -> list[Runtime]:
            return [SharkRuntime()]

    message = told({"plugins": {"enabled": ["wrong", "undeclared"]}}, wrong=Wrong(), undeclared=Undeclared())
    assert "SharkSection is no section that the plugin 'wrong' declares" in message


def test_ingresses_are_asked_in_order_of_priority_then_name() -> None:
    class Way(Ingress):
        def __init__(self, name: str, priority: int) -> None:
            self.name = name  # type: ignore[misc]  # one class, several names
            self.priority = priority

        def endpoint(self, query: EndpointQuery) -> Endpoint | None:
            return None

    class Ways:
        @hookimpl
        def shoal_register_ingresses(self) -> list[Ingress]:
            return [Way("b", 0), Way("c", 5), Way("a", 0)]

    components = register({"plugins": {"enabled": ["ways", "s"]}}, ways=Ways(), s=SharkPlugin())
    assert [way.name for way in components.ingresses] == ["c", "a", "b"]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution on sys.path with a plugin whose package needs something that is not installed."""
    info = tmp_path / "reef-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: reef\nVersion: 1.2\nRequires-Dist: nosuchengine>=1; extra == 'engine'\n"
    )
    (info / "entry_points.txt").write_text("[shoal.plugins]\nreef_runtime = reef_plugin\nbroken = reef_broken\n")
    (tmp_path / "reef_plugin.py").write_text("import nosuchengine\n")
    (tmp_path / "reef_broken.py").write_text("raise RuntimeError('no coral')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("reef_plugin", "reef_broken"):
        sys.modules.pop(name, None)


def test_a_missing_package_names_the_extra(installed: Path) -> None:
    assert told({"plugins": {"enabled": ["reef_runtime"]}}) == (
        "plugin 'reef_runtime' needs the package 'nosuchengine', which is not installed: "
        "install reef with its extra 'engine'"
    )


def test_a_plugin_that_cannot_be_imported_matters_only_when_enabled(installed: Path) -> None:
    assert "broken" not in manager({}).enabled
    message = told({"plugins": {"enabled": ["broken"]}})
    assert message == "plugin 'broken' failed in import: RuntimeError: no coral"


def test_an_unknown_runtime_tells_of_plugins_that_could_not_be_asked(installed: Path) -> None:
    message = told({"runtime": {"type": "atoll"}})
    assert message.startswith("runtime.type: no enabled plugin provides the runtime 'atoll'")
    assert "install reef with its extra 'engine'" in message


def test_a_runtime_of_a_plugin_that_cannot_be_imported(installed: Path) -> None:
    message = told({"runtime": {"type": "reef"}})
    assert message.startswith("plugin 'reef_runtime' needs the package 'nosuchengine', which is not installed")


def test_two_distributions_with_one_name(installed: Path, tmp_path: Path) -> None:
    other = tmp_path / "atoll-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: atoll\nVersion: 1\n")
    (other / "entry_points.txt").write_text("[shoal.plugins]\nreef_runtime = atoll\n")
    assert "two installed plugins are named 'reef_runtime'" in told({})


def test_survey_tells_of_every_plugin(installed: Path) -> None:
    found = {status.name: status for status in survey(Loaded(raw={"runtime": {"type": "shark"}}), {"s": SharkPlugin()})}
    assert found["s"].enabled
    assert found["s"].hooks == ["shoal_wanted", "shoal_config_sections", "shoal_register_runtimes"]
    assert found["s"].sections == ["shark"]
    assert not found["reef_runtime"].enabled
    assert found["reef_runtime"].distribution == "reef"
    assert "install reef with its extra 'engine'" in (found["reef_runtime"].failure or "")
    assert "no coral" in (found["broken"].failure or "")


def test_managers_share_nothing() -> None:
    first, second = SharkPlugin(), SharkPlugin()
    raw = {"plugins": {"enabled": ["s"]}}
    register({**raw, "shark": {"teeth": 1}}, s=first)
    register({**raw, "shark": {"teeth": 2}}, s=second)
    assert (first.seen.teeth, second.seen.teeth) == (1, 2)


def test_a_plugin_may_be_a_module() -> None:
    module = types.ModuleType("shark_module")
    vars(module)["shoal_register_runtimes"] = hookimpl(lambda context: [SharkRuntime()])
    assert "shark" in register({"plugins": {"enabled": ["m"]}}, m=module).runtimes
