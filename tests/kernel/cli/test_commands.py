"""Sub-commands of strangers' plugins, installed by entry point."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from tests.docs.pages import parts
from tests.kernel.cli.told import Run
from tests.support.stranger import installed

from shoal.cli.main import BUILT_IN

[WHERE] = [part.blocks[0][1] for part in parts("plugins.md") if part.heading.startswith("`shoal_register_commands")]
Install = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def install(home: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(name=source)``, in the home of the command line."""
    return partial(installed, home, monkeypatch)


def test_it_is_shown_in_help_and_runs(run: Run, home: Path, install: Install) -> None:
    config = home / "shoal.toml"
    config.write_text('[server]\nhost = "127.0.0.1"\nport = 8181\n')
    with install(where=WHERE):
        out = run("--help")[1]
        named = [line.split()[0] for line in out.splitlines() if re.match(r" {4}\S", line)]
        assert named[: len(BUILT_IN)] == [*BUILT_IN]
        assert "where" in named
        assert "print where the server of this configuration listens" in out
        assert run("where", "--url", "--config", config) == (0, "http://127.0.0.1:8181\n", "")
        assert run("--config", config, "where") == (0, "127.0.0.1:8181\n", "")
        assert "--url" in run("where", "--help")[1]


def test_what_it_raises_is_one_line(run: Run, home: Path, install: Install) -> None:
    (home / "bad.toml").write_text("[sevrer]\n")
    with install(where=WHERE):
        code, out, err = run("where", "--config", home / "bad.toml")
    assert (code, out) == (1, "")
    assert err == "shoal: [sevrer]: no enabled plugin owns this section; did you mean 'server'?\n"


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("asked", ["--help", "check-config", "swim"])
def test_a_name_that_the_server_has_stops_with_one_line(run: Run, install: Install, name: str, asked: str) -> None:
    with install(reef=WHERE.replace('"where"', f'"{name}"')):
        code, out, err = run(asked)
    assert (code, out) == (1, "")
    assert err == f"shoal: plugin 'reef': the command '{name}' is taken by the server itself\n"


def test_two_plugins_of_one_command_stop_with_one_line(run: Run, install: Install) -> None:
    with install(atoll=WHERE, reef=WHERE):
        code, out, err = run("where")
    assert (code, out) == (1, "")
    assert err == "shoal: plugin 'reef': the command 'where' is taken by the plugin 'atoll'\n"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise RuntimeError('no')", "plugin 'reef' failed in import: RuntimeError: no"),
        (
            WHERE.replace("[Where()]", "[1]"),
            "plugin 'reef': the hook shoal_register_commands must return a list of Command; it returned a list of int",
        ),
        (WHERE.replace("    help =", "    hepl ="), "plugin 'reef': Where needs a name and a help, texts"),
    ],
)
def test_a_plugin_that_fails_is_named_and_left_out(run: Run, install: Install, source: str, told: str) -> None:
    with install(atoll=WHERE, reef=source):
        code, out, err = run("--help")
    assert (code, err) == (0, f"shoal: {told}\n")
    assert "    where" in out
