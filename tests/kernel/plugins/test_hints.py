"""A configuration that asks for what a plugin has that is not enabled: the line says which, and how to enable it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.lifecycle import register

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin.manager import PluginManager


def refused(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        register(PluginManager(Loaded(raw=raw)))
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
