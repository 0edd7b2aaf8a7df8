"""``shoal check-config`` and ``shoal plugins``: what they tell of good and of bad configurations."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.cli.told import Run


@pytest.fixture
def config(home: Path) -> Path:
    return home / "shoal.toml"


@pytest.fixture
def broken(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of an installed plugin that cannot be imported."""
    info = home / "reef-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reef\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[shoal.plugins]\nreef = reef_broken\n")
    (home / "reef_broken.py").write_text("raise RuntimeError('no coral')\n")
    monkeypatch.syspath_prepend(str(home))
    yield "reef"
    sys.modules.pop("reef_broken", None)


def test_with_no_file_the_embedded_default_is_checked(run: Run) -> None:
    code, out, err = run("check-config")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "source: no file; the embedded default"
    assert lines[1].startswith("note: without a configuration the first start makes an API key: ")
    assert "authentication: apikey" in lines
    assert "runtimes: local; default: local" in lines
    assert "listens on: 127.0.0.1, port 8080" in lines
    assert lines[-1] == "ok"


def test_source_and_plugins_are_told(run: Run, config: Path) -> None:
    config.write_text(
        '[server]\nhost = "127.0.0.1"\napi_key = "hunter2"\n[plugins]\nenabled = ["apikey_auth", "local_runtime"]\n'
        '[local]\nnetwork = "none"\n'
    )
    code, out, err = run("check-config", "--config", config)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"source: {config}",
        "enabled plugins:",
        "  apikey_auth    listed in plugins.enabled",
        "  local_runtime  listed in plugins.enabled",
        "  sqlite_store   named by store.type",
        "runtimes: local; default: local",
        "authentication: apikey",
        "listens on: 127.0.0.1, port 8080",
        (
            "note: with server.api_key alone, /sandboxes/{id}/proxy/{port} needs no key, as in opensandbox-server: "
            "whoever knows a sandbox's id reaches its ports; [apikey_auth] open_proxy = false asks for the key"
        ),
        "ok",
    ]


def test_every_problem_is_a_line_and_no_value_is_repeated(run: Run, config: Path) -> None:
    config.write_text('[server]\nport = "hunter2"\n[log]\nfromat = "json"\n[sevrer]\n')
    code, out, err = run("check-config", "--config", config)
    assert code == 1
    assert out.startswith(f"source: {config}\n")
    assert "ok" not in out.splitlines()
    assert err.splitlines() == [
        "shoal: [sevrer]: no enabled plugin owns this section; did you mean 'server'?",
        "shoal: log.fromat: unknown key; did you mean 'format'?",
        "shoal: server.port: expected `int`, got `str`",
    ]


def test_a_plugins_own_refusal_is_told(run: Run, config: Path) -> None:
    config.write_text('[[apikey_auth.keys]]\nname = "server"\nenv = "CI_KEY"\n')
    code, _, err = run("check-config", "--config", config)
    assert (code, err) == (1, "shoal: apikey_auth.keys[0]: the name server is taken by the server itself\n")


def test_no_runtime_is_told(run: Run, config: Path) -> None:
    config.write_text('[runtime]\ntype = "loca"\n')
    code, _, err = run("check-config", "--config", config)
    assert code == 1
    assert err.startswith("shoal: runtime.type: no enabled plugin provides the runtime 'loca'")


def test_an_open_start_is_told_as_the_server_would(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text('[server]\nhost = "0.0.0.0"\n')
    code, _, err = run("check-config", "--config", config)
    assert code == 1
    assert err.startswith("shoal: the server would listen on 0.0.0.0 without authentication")
    monkeypatch.setenv("OPENSANDBOX_INSECURE_SERVER", "YES")
    code, out, _ = run("check-config", "--config", config)
    assert code == 0
    assert "note: no authentication: everyone who reaches this address may use the server" in out.splitlines()
    monkeypatch.setenv("OPENSANDBOX_SERVER_API_KEY", "a-key")
    assert "no authentication" not in run("check-config", "--config", config).out


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            '[runtime]\ntype = "kubernetes"\n[kubernetes]\nbatchsandbox_template_file = "/missing.yaml"\n',
            "kubernetes.batchsandbox_template_file: /missing.yaml cannot be read: FileNotFoundError",
        ),
        (
            (
                '[runtime]\ntype = "kubernetes"\n[kubernetes]\nworkload_provider = "agent-sandbox"\n'
                '[agent_sandbox]\ntemplate_file = "/missing.yaml"\n'
            ),
            "agent_sandbox.template_file: /missing.yaml cannot be read: FileNotFoundError",
        ),
        (
            '[runtime]\ntype = "kubernetes"\n[kubernetes]\nkubeconfig_path = "/missing"\n',
            "kubernetes.kubeconfig_path: there is no file /missing",
        ),
        (
            '[[apikey_auth.keys]]\nname = "ci"\nfile = "/missing"\n',
            "apikey_auth.keys: key ci: there is no such file, or it holds no key",
        ),
        (
            '[ingress.preview]\ndomain = "preview.example.com"\nkey_file = "/missing"\n',
            "ingress.preview.key_file: cannot read /missing: No such file or directory",
        ),
    ],
)
def test_files_that_are_named_are_read(run: Run, config: Path, text: str, problem: str) -> None:
    config.write_text(f'[server]\nhost = "127.0.0.1"\n{text}')
    code, _, err = run("check-config", "--config", config)
    assert (code, err) == (1, f"shoal: {problem}\n")


def test_files_that_could_not_be_written_are_told(run: Run, config: Path, home: Path) -> None:
    (home / "file").touch()
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\n[store]\npath = "{home}/file/x.db"\n'
        f'[log]\nfile_enabled = true\nfile_path = "{home}"\naccess_file_path = "{home}/new/access.log"\n'
    )
    code, _, err = run("check-config", "--config", config)
    assert (code, err.splitlines()) == (
        1,
        [f"shoal: log.file_path: {home} is a directory", f"shoal: store.path: {home}/file is not a directory"],
    )
    assert not (home / "new").exists()


def test_nothing_is_opened(run: Run, home: Path) -> None:
    run("check-config")
    assert list(home.iterdir()) == []


def test_a_plugin_that_nobody_asks_for_may_be_broken(run: Run, broken: str) -> None:
    code, out, _ = run("check-config")
    assert code == 0
    assert "note: plugin 'reef' failed in import: RuntimeError: no coral" in out.splitlines()


def test_a_plugin_that_is_asked_for_may_not(run: Run, broken: str, config: Path) -> None:
    config.write_text('[plugins]\nenabled = ["reef", "local_runtime"]\n')
    code, _, err = run("check-config", "--config", config)
    assert (code, err) == (1, "shoal: plugin 'reef' failed in import: RuntimeError: no coral\n")


def test_plugins_tells_of_each(run: Run, broken: str) -> None:
    code, out, err = run("plugins")
    assert (code, err) == (0, "")
    told = {block.partition(":")[0]: block.splitlines() for block in out.split("\n\n")}
    assert told["reef"] == [
        "reef: not enabled",
        "  failed    plugin 'reef' failed in import: RuntimeError: no coral",
        "  from      reef 1.2",
    ]
    assert told["local_runtime"][0] == "local_runtime: enabled (wanted by the configuration)"
    assert "  hooks     shoal_wanted, shoal_config_sections, shoal_register_runtimes" in told["local_runtime"]
    assert "  sections  [local]" in told["local_runtime"]


def test_plugins_as_json(run: Run, broken: str, config: Path) -> None:
    config.write_text('[plugins]\nenabled = ["local_runtime"]\n')
    found = {each["name"]: each for each in json.loads(run("plugins", "--json", "--config", config).out)}
    assert found["local_runtime"]["enabled"] is True
    assert found["local_runtime"]["why"] == "listed in plugins.enabled"
    assert found["apikey_auth"]["enabled"] is False
    assert found["reef"] == {
        "name": "reef",
        "distribution": "reef",
        "version": "1.2",
        "enabled": False,
        "why": "not listed in plugins.enabled",
        "failure": "plugin 'reef' failed in import: RuntimeError: no coral",
        "hooks": [],
        "sections": [],
    }
