"""``shoal`` itself: usage, exit codes, how failures look, and that it starts quickly."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kernel.cli.told import Run

import shoal

SHOAL = [sys.executable, "-m", "shoal.cli.main"]


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"shoal {shoal.__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    commands = [line.split()[0] for line in out.splitlines() if re.match(r" {4}\S", line)]
    assert commands[:5] == ["serve", "init-config", "check-config", "plugins", "demo"]
    assert commands[5:] == sorted(commands[5:])  # those of plugins


@pytest.mark.parametrize("arguments", [("swim",), ("--config",), ("serve", "--port", "many"), ("plugins", "--yaml")])
def test_wrong_usage_is_exit_code_2(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("usage: shoal")


@pytest.mark.parametrize("command", [["serve"], ["check-config"], ["plugins"], []])
@pytest.mark.parametrize("first", [False, True])
def test_a_missing_file_is_one_line(run: Run, home: Path, command: list[str], first: bool) -> None:
    missing = home / "missing.toml"
    flag = ["--config", missing]
    arguments = [*flag, *command] if first else [*command, *flag]
    assert run(*arguments) == (1, "", f"shoal: cannot read {missing}: No such file or directory\n")


def test_every_problem_is_a_line_of_its_own(run: Run, home: Path) -> None:
    file = home / "bad.toml"
    file.write_text('[server]\nport = 0\nhots = "::1"\n[sotre]\n')
    code, _, err = run("serve", "--config", file)
    assert code == 1
    assert err.splitlines() == [
        "shoal: [sotre]: no enabled plugin owns this section; did you mean 'store'?",
        "shoal: server.hots: unknown key; did you mean 'host'?",
        "shoal: server.port: expected `int` >= 1",
    ]


def test_nothing_heavy_is_imported_before_a_command_runs() -> None:
    program = "import sys, shoal.cli.main as cli; cli._parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "asyncio",
        "falcon",
        "importlib.metadata",
        "msgspec",
        "pluggy",
        "sqlite3",
        "structlog",
        "uvicorn",
        "uvloop",
    }
    assert heavy.isdisjoint(loaded)


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        ended = subprocess.run([*SHOAL, "plugins"], stdout=gone, stderr=subprocess.PIPE, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (1, b"")
