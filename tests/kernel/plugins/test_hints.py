"""A configuration that asks for what a plugin has that is not enabled: the line says which, and how to enable it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.lifecycle import register

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Runtime, Store
from shoal.plugin.manager import PluginManager
from shoal.testing.pretend import PretendRuntime


def refused(raw: dict[str, Any], **plugins: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        register(PluginManager(Loaded(raw=raw), plugins))
    return str(caught.value)


def test_a_key_that_nobody_reads() -> None:
    raw = {"server": {"api_key": "never-shown"}, "plugins": {"enabled": ["local_runtime"]}}
    assert refused(raw) == (
        "server.api_key: no enabled plugin reads it; the plugin 'apikey_auth' is installed and not enabled: "
        "add it to plugins.enabled"
    )


@pytest.mark.parametrize("key", ["", "  "])
def test_a_blank_key_counts_as_none(key: str) -> None:
    PluginManager(Loaded(raw={"server": {"api_key": key}, "plugins": {"enabled": ["local_runtime"]}}))


def test_a_key_that_is_read() -> None:
    raw: dict[str, Any] = {"server": {"api_key": "some-key"}, "plugins": {"enabled": ["local_runtime", "apikey_auth"]}}
    assert register(PluginManager(Loaded(raw=raw))).authenticators


@pytest.mark.parametrize(("runtime", "plugin"), [("docker", "docker_runtime"), ("kubernetes", "k8s_runtime")])
def test_the_runtime_of_a_plugin_that_is_not_enabled(runtime: str, plugin: str) -> None:
    raw = {"runtime": {"type": runtime}, "plugins": {"enabled": ["local_runtime"]}}
    assert refused(raw) == (
        f"runtime.type: no enabled plugin provides the runtime {runtime!r}; "
        f"the plugin {plugin!r} is installed and not enabled: add it to plugins.enabled"
    )


@pytest.mark.parametrize(("typed", "meant"), [("dokcer", "docker"), ("kubernets", "kubernetes"), ("locla", "local")])
@pytest.mark.parametrize("plugins", [{}, {"plugins": {"enabled": ["local_runtime"]}}])
def test_the_nearest_name_enabled_or_not(typed: str, meant: str, plugins: dict[str, Any]) -> None:
    raw = {"runtime": {"type": typed}, **plugins}
    assert f"the runtime {typed!r}; did you mean {meant!r}?" in refused(raw)


def test_the_name_of_a_plugin_is_not_that_of_its_runtime() -> None:
    line = refused({"runtime": {"type": "docker_runtime"}})
    assert "it is the name of a plugin; did you mean 'docker'?" in line


class Plain(PretendRuntime):
    name = "plain"


class PlainPlugin:
    """A plugin that leaves it to the kernel by what it is enabled."""

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [Plain()]


class JsonLines:
    @hookimpl
    def shoal_register_store(self) -> Store | None:
        return None


def test_a_runtime_enables_the_plugin_that_is_named_after_it() -> None:
    manager = PluginManager(Loaded(raw={"runtime": {"type": "plain"}}), {"plain_runtime": PlainPlugin()})
    assert register(manager).default_runtime == "plain"


def test_the_list_still_decides_about_runtimes() -> None:
    line = refused({"runtime": {"type": "plain"}, "plugins": {"enabled": []}}, plain_runtime=PlainPlugin())
    assert "the plugin 'plain_runtime' is installed and not enabled: add it to plugins.enabled" in line


def test_the_names_of_plugins_are_not_listed_as_runtimes() -> None:
    line = refused({"runtime": {"type": "zzz"}}, plain_runtime=PlainPlugin())
    known = line.partition("; known: ")[2].split(", ")
    assert {"docker", "local", "plain"} <= {*known}
    assert not {"docker_runtime", "local_runtime", "plain_runtime"} & {*known}


def test_stores_that_no_enabled_plugin_has_are_known_by_name() -> None:
    line = refused({"store": {"type": "jsonls"}}, jsonl_store=JsonLines())
    assert line == "store.type: no enabled plugin provides the store 'jsonls'; did you mean 'jsonl'?"
    line = refused({"store": {"type": "zzz"}}, jsonl_store=JsonLines())
    assert line == "store.type: no enabled plugin provides the store 'zzz'; known: jsonl, sqlite"
