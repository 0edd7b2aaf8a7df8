"""What a configuration may say, and how each thing that it may not say is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from shoal.config.sections import KERNEL_SECTIONS, Elsewhere, OwnedSection, settings_of, validate
from shoal.config.settings import Section, Settings
from shoal.errors import ConfigError


def problems(raw: dict[str, Any], *more: OwnedSection, elsewhere: dict[str, Elsewhere] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(raw, [*KERNEL_SECTIONS, *more], elsewhere or {})
    return str(caught.value).splitlines()


def read(raw: dict[str, Any]) -> Settings:
    return settings_of(validate(raw, KERNEL_SECTIONS, {}))


def test_nothing_is_all_defaults() -> None:
    assert read({}) == Settings()


def test_numbers_and_booleans_may_be_quoted() -> None:
    settings = read({"server": {"port": "9000"}, "proxy": {"resolve_internal": "false"}})
    assert settings.server.port == 9000
    assert settings.proxy.resolve_internal is False


def test_every_problem_is_told_at_once_with_its_path() -> None:
    assert problems({"server": {"port": 0, "backlog": "many"}, "lifecycle": {"provision_attempts": 0}}) == [
        "server.port: expected `int` >= 1",
        "server.backlog: expected `int`, got `str`",
        "lifecycle.provision_attempts: expected `int` >= 1",
    ]


def test_unknown_section_names_the_nearest() -> None:
    assert problems({"sevrer": {}}) == ["[sevrer]: no enabled plugin owns this section; did you mean 'server'?"]


def test_an_item_of_a_list_is_named() -> None:
    assert problems({"plugins": {"enabled": ["a", 3]}}) == ["plugins.enabled[1]: expected `str`, got `int`"]


def test_a_table_inside_a_disabled_plugins_table_names_it() -> None:
    elsewhere = {"shark.tail": Elsewhere("tail_plugin")}
    told = ["[shark]: belongs to the plugin 'tail_plugin', which is not enabled"]
    assert problems({"shark": {"tail": {}}}, elsewhere=elsewhere) == told
    told = ["[shark.tail]: belongs to the plugin 'tail_plugin', which is not enabled"]
    assert problems({"shark": {"tail": {}}}, OwnedSection("shark", Fin), elsewhere=elsewhere) == told


def test_no_repr_shows_a_secret() -> None:
    settings = read({"server": {"api_key": "hunter2"}, "store": {"postgresql": {"dsn": "hunter2"}}})
    assert "hunter2" not in repr(settings)


def test_section_of_a_disabled_plugin_names_it() -> None:
    told = problems({"shark": {"teeth": 3}}, elsewhere={"shark": Elsewhere("shark_runtime")})
    assert told == ["[shark]: belongs to the plugin 'shark_runtime', which is not enabled"]


def test_unknown_key_names_the_nearest() -> None:
    assert problems({"server": {"prot": 1}}) == ["server.prot: unknown key; did you mean 'port'?"]


def test_a_section_must_be_a_table() -> None:
    assert problems({"server": 3}) == ["server: expected a table"]


def test_a_choice_is_told_without_the_value() -> None:
    assert problems({"log": {"format": "hunter2"}}) == ["log.format: expected one of 'auto', 'console', 'json'"]


@pytest.mark.parametrize("value", ["hunter2", ["hunter2"], {"hunter2": "hunter2"}, 77777])
def test_no_value_is_ever_repeated(value: Any) -> None:
    raw = {
        section: dict.fromkeys(("port", "type", "level", "enabled"), value) for section in ("server", "log", "plugins")
    }
    assert not re.search(r"hunter2'?\b(?!:)|77777", "\n".join(problems(raw)).replace("unknown key", ""))


class Teeth(Section):
    sharp: bool = True


class Fin(Section):
    size: int = 1
    teeth: list[Teeth] = []


class Tail(Section):
    length: int = 2


def test_a_table_with_two_owners_knows_the_keys_of_both() -> None:
    read = validate({"shark": {"size": 5, "length": 6}}, [OwnedSection("shark", Fin), OwnedSection("shark", Tail)], {})
    assert read == {Fin: Fin(size=5), Tail: Tail(length=6)}


def test_tables_inside_tables() -> None:
    sections = [OwnedSection("shark", Fin), OwnedSection("shark.tail", Tail)]
    assert validate({"shark": {"size": 5, "tail": {"length": 6}}}, sections, {})[Tail] == Tail(length=6)
    with pytest.raises(ConfigError) as caught:
        validate({"shark": {"tial": {}, "teeth": [{"sharp": True}, {"shrap": 1, "sharp": 7}]}}, sections, {})
    assert str(caught.value).splitlines() == [
        "shark.tial: unknown key; did you mean 'tail'?",
        "shark.teeth[1].sharp: expected `bool`, got `int`",
        "shark.teeth[1].shrap: unknown key; did you mean 'sharp'?",
    ]


def test_the_keys_of_opensandbox_server_are_the_kernels(tmp_path: Path) -> None:
    """Every key of the sections that both have (docs/wire/api.md section 19), with a value of the documented kind."""
    theirs = {
        "server": {
            "host": "0.0.0.0",
            "port": 8080,
            "api_key": "k",
            "eip": "1.2.3.4",
            "max_sandbox_timeout_seconds": 3600,
            "timeout_keep_alive": 30,
            "timeout_graceful_shutdown": 5,
            "limit_concurrency": 1024,
            "backlog": 2048,
            "thread_pool_size": 200,
            "loop": "auto",
            "http": "auto",
        },
        "proxy": {"resolve_internal": True},
        "log": {
            "level": "INFO",
            "file_enabled": False,
            "file_path": "a",
            "access_file_path": "b",
            "file_max_bytes": 1,
            "file_backup_count": 0,
        },
        "runtime": {"type": "docker", "execd_image": "x", "execd_run_as_init": True},
        "storage": {"allowed_host_paths": [], "volume_default_size": "1Gi", "ossfs_mount_root": "/mnt/ossfs"},
        "store": {"type": "sqlite", "path": "~/.opensandbox/opensandbox.db"},
    }
    settings = read(json.loads(json.dumps(theirs)))
    assert settings.server.max_sandbox_timeout_seconds == 3600
    assert settings.runtime.type == "docker"


TOML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
NAMES = [section.path for section in KERNEL_SECTIONS]
KEYS = [field for section in KERNEL_SECTIONS for field in section.kind.__struct_fields__]


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | st.text(max_size=6),
        st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), TOML, max_size=4) | TOML,
        max_size=4,
    )
)
def test_any_table_is_settings_or_a_config_error(raw: dict[str, Any]) -> None:
    try:
        settings = read(raw)
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(settings, Settings)
        assert all(isinstance(getattr(settings, name), Struct) for name in NAMES)
