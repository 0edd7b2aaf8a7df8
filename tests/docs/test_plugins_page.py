"""docs/plugins.md says what the code says: every hook and interface, and examples that work."""

from __future__ import annotations

import inspect
import re
import tomllib
import types
from pathlib import Path

import pluggy
import pytest
from msgspec import Struct
from msgspec.structs import fields
from tests.docs.pages import Part, parts, plugin
from tests.support.lifecycle import empty_lifecycle

from shoal.config.settings import Settings
from shoal.plugin import ConfigSection, PluginContext, hookspecs, interfaces
from shoal.plugin.interfaces import Component
from shoal.plugin.spelling import HOOKS

PAGE = list(parts("plugins.md"))
HOOK_PARTS = [part for part in PAGE if part.heading.startswith("`shoal_")]
KINDS: dict[str, type] = {
    "shoal_wanted": bool,
    "shoal_config_sections": ConfigSection,
    "shoal_register_store": types.NoneType,
    "shoal_register_agents": interfaces.Agent,
    "shoal_register_runtimes": interfaces.Runtime,
    "shoal_register_authenticators": interfaces.Authenticator,
    "shoal_register_networking": interfaces.Networking,
    "shoal_register_ingresses": interfaces.Ingress,
    "shoal_register_renewals": interfaces.Renewal,
    "shoal_register_observers": interfaces.Observer,
    "shoal_register_resources": interfaces.Resources,
    "shoal_register_policies": interfaces.Policy,
    "shoal_register_commands": interfaces.Command,
}
"""What each hook's example gives; with default settings the store's leaves it to SQLite."""


def signature(name: str) -> str:
    found = inspect.signature(getattr(hookspecs, name))
    arguments = ", ".join(f"{each.name}: {each.annotation}" for each in found.parameters.values())
    return f"{name}({arguments}) -> {found.return_annotation}"


def hook_of(part: Part) -> str:
    return part.heading.strip("`").partition("(")[0]


def test_every_hook_has_a_heading_equal_to_its_signature_in_the_order_of_the_specification() -> None:
    assert [part.heading for part in HOOK_PARTS] == [f"`{signature(name)}`" for name in HOOKS]


@pytest.mark.parametrize("part", HOOK_PARTS, ids=[hook_of(part) for part in HOOK_PARTS])
def test_the_example_of_a_hook_implements_it(part: Part) -> None:
    [(language, source)] = part.blocks
    assert language == "python"
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin(source))
    manager.check_pending()
    hook = hook_of(part)
    given: dict[str, object] = {"config": {"runtime": {"type": "firefly"}}}
    if "context" in signature(hook):
        sections: dict[type, Struct] = {}
        given = {"context": PluginContext(Settings(), sections, empty_lifecycle())}
    elif "config" not in signature(hook):
        given = {}
    answer = getattr(manager.hook, hook)(**given)
    if hook == "shoal_register_store":
        assert answer == []
        return
    [made] = answer
    for each in made if isinstance(made, list) else [made]:
        assert isinstance(each, KINDS[hook])
        assert made is not False
        if isinstance(each, Component):
            assert each.name


def test_the_first_example_fits_the_hook_specifications() -> None:
    [part] = [part for part in PAGE if part.heading == "A plugin in two files"]
    (toml, entry), (python, source) = part.blocks
    assert (toml, python) == ("toml", "python")
    assert list(tomllib.loads(entry)["project"]["entry-points"]) == [hookspecs.ENTRY_POINT_GROUP]
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin(source))
    manager.check_pending()


async def test_a_server_made_as_the_page_says_runs_and_opens_nothing_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    [runtime] = [part for part in HOOK_PARTS if hook_of(part) == "shoal_register_runtimes"]
    [testing] = [part for part in PAGE if part.heading == "Testing a plugin"]
    (_, settings), (_, source) = testing.blocks
    assert tomllib.loads(settings)["tool"]["pytest"]["ini_options"] == {"asyncio_mode": "auto"}
    await plugin(source).test_a_sandbox_runs(plugin(runtime.blocks[0][1]))
    assert content(tmp_path) == []


def content(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def test_the_table_of_interfaces_says_what_must_be_implemented() -> None:
    [part] = [part for part in PAGE if part.heading == "The interfaces"]
    families = [kind for kind in vars(interfaces).values() if isinstance(kind, type) and issubclass(kind, Component)]
    expected = {}
    for kind in families:
        if kind is not Component:
            abstract: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
            methods = {name for name, member in vars(kind).items() if inspect.isfunction(member) and name[0] != "_"}
            expected[f"`{kind.__name__}`"] = [named(abstract), named(methods - abstract)]
    assert {row[0]: row[1:] for row in part.rows} == expected


def named(names: set[str] | frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def test_the_options_of_an_operation_and_a_route_are_all_in_the_tables() -> None:
    [part] = [part for part in HOOK_PARTS if hook_of(part) == "shoal_register_resources"]
    named = {word for row in part.rows for word in re.findall(r"`(\w+)`", row[0])}
    options = {field.name for kind in (interfaces.Operation, interfaces.Route) for field in fields(kind)}
    assert options <= named
