"""``shoal init-config``, and that the example files say what is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert, structs
from tests.kernel.cli.told import Run

from shoal.cli.init_config import example
from shoal.cli.main import EXAMPLES
from shoal.cli.skeleton import skeleton
from shoal.config.loader import EMBEDDED, Loaded
from shoal.config.sections import KERNEL_SECTIONS, validate
from shoal.plugin.manager import PluginManager

KERNEL = {section.path for section in KERNEL_SECTIONS}

THEIR_KEYS = """
docker: network_mode api_timeout host_ip drop_capabilities no_new_privileges apparmor_profile seccomp_profile
docker: pids_limit port_range_min port_range_max publish_host sandbox_env sandbox_binds
kubernetes: kubeconfig_path insecure_skip_tls_verify namespace informer_resync_seconds informer_watch_timeout_seconds
kubernetes: read_qps read_burst write_qps write_burst workload_provider batchsandbox_template_file
kubernetes: sandbox_create_timeout_seconds pool_acquisition_timeout_seconds sandbox_create_poll_interval_seconds
kubernetes: execd_init_resources image_pull_policy
ingress: mode gateway secure_access
egress: image mode disable_ipv6 readiness_timeout_seconds otlp_endpoint upstream_proxy
"""
"""Keys of sections of opensandbox-server that no plugin here owns yet (docs/wire/api.md section 19)."""


def their_keys(section: str) -> set[str]:
    lines = [line.split() for line in THEIR_KEYS.strip().splitlines()]
    return {key for name, *keys in lines if name == f"{section}:" for key in keys}


def uncommented(text: str) -> dict[str, Any]:
    """The file with every setting in it that is commented out."""
    return tomllib.loads(re.sub(r"^#(?=[\w\"\[])", "", text, flags=re.MULTILINE))


def test_it_writes_a_file_for_its_owner_alone(run: Run, home: Path) -> None:
    code, out, err = run("init-config")
    file = home / ".sandbox.toml"
    assert (code, err) == (0, "")
    assert str(file) in out
    assert file.read_text() == skeleton()
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_can_be_asked_for(run: Run, home: Path, name: str) -> None:
    assert run("init-config", home / "here.toml", "--example", name).code == 0
    assert (home / "here.toml").read_text() == example(name)


def test_an_existing_file_is_left_alone(run: Run, home: Path) -> None:
    file = home / "mine.toml"
    file.write_text("mine")
    assert run("init-config", file) == (1, "", f"shoal: {file} exists already; --force overwrites it\n")
    assert file.read_text() == "mine"


def test_force_overwrites_and_closes_the_file_to_others(run: Run, home: Path) -> None:
    file = home / "mine.toml"
    file.write_text("x" * 100_000)
    file.chmod(0o644)
    assert run("init-config", file, "--force").code == 0
    assert file.read_text() == skeleton()
    assert file.stat().st_mode & 0o777 == 0o600


def test_an_unknown_example_is_wrong_usage(run: Run, home: Path) -> None:
    code, _, err = run("init-config", "--example", "podman")
    assert code == 2
    assert "invalid choice: 'podman'" in err
    assert list(home.iterdir()) == []


def test_a_directory_that_is_missing_is_one_line(run: Run, home: Path) -> None:
    file = home / "missing" / "file.toml"
    assert run("init-config", file).err == f"shoal: cannot write {file}: No such file or directory\n"


def test_the_local_example_is_accepted_as_it_is(run: Run, home: Path) -> None:
    assert run("init-config", "--example", "local").code == 0
    code, out, err = run("check-config")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "ok"


def test_the_skeleton_is_accepted_as_it_is_and_changes_nothing(run: Run, home: Path) -> None:
    assert run("init-config").code == 0
    code, out, err = run("check-config")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "ok"
    assert PluginManager(Loaded(raw=tomllib.loads(skeleton()))).settings == PluginManager(Loaded(raw=EMBEDDED)).settings


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_every_default_in_the_skeleton_is_one(kind: str) -> None:
    raw = uncommented(skeleton())
    raw["runtime"]["type"] = kind
    read = PluginManager(Loaded(raw=raw))
    assert read.settings == PluginManager(Loaded(raw={**EMBEDDED, "runtime": {"type": kind}})).settings


def test_the_skeleton_has_every_key() -> None:
    text = skeleton()
    for section in KERNEL_SECTIONS:
        table = text.partition(f"[{section.path}]\n")[2].partition("\n\n")[0]
        keys = re.findall(r"^(?:# ?)?(\w+)(?: =|:)", table, flags=re.MULTILINE)
        assert sorted(keys) == sorted(field.encode_name for field in structs.fields(section.kind))
    for header in ("[docker]", "[kubernetes]", "[agent_sandbox]", "[ingress.gateway.route]", "[[apikey_auth.keys]]"):
        assert header in text


@pytest.mark.parametrize("name", ["docker", "k8s"])
def test_the_chinese_examples_say_the_same(name: str) -> None:
    assert tomllib.loads(example(f"{name}-zh")) == tomllib.loads(example(name))
    assert uncommented(example(f"{name}-zh")) == uncommented(example(name))


def test_every_setting_in_the_local_example_is_one(home: Path) -> None:
    assert PluginManager(Loaded(raw=uncommented(example("local")))).settings.server.api_key == "…"


@pytest.mark.parametrize("name", ["docker", "k8s"])
def test_every_setting_in_the_other_examples_is_one(name: str) -> None:
    raw = uncommented(example(name))
    validate({key: value for key, value in raw.items() if key in KERNEL}, KERNEL_SECTIONS, {})
    for section in raw.keys() - KERNEL:
        assert raw[section].keys() <= their_keys(section)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_value_of_the_kernels_that_is_commented_out_is_a_default_or_has_none(name: str) -> None:
    written = tomllib.loads(example(name))
    for section in KERNEL_SECTIONS:
        defaults = structs.asdict(convert({}, section.kind))
        for key, value in uncommented(example(name)).get(section.path, {}).items():
            if key not in written.get(section.path, {}) and defaults[key] is not None:
                assert value == defaults[key], f"{section.path}.{key}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_lines_fit_a_terminal(name: str) -> None:
    assert [line for line in example(name).splitlines() if len(line) > 120] == []
