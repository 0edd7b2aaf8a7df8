"""The env file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from opensandbox.adapters.converter.env_entry import build_set_env_command
from tests.agent.commands.streams import run
from tests.agent.program import StartAgent

from shoal_agent.envfile import parse
from shoal_agent.environment import with_env_file

CASES = [
    ("A=1\n# A=3\n\nA=2\n", {"A": "2"}),
    ("A=\n", {"A": ""}),
    ("  A = x y  \r\n", {"A": "x y"}),
    ("A=a=b=c", {"A": "a=b=c"}),
    ("A=$HOME/x:${HOME}:$NOPE.", {"A": "/h/x:/h:."}),
    ("A='x $HOME \\n'", {"A": "x $HOME \\n"}),
    ("A='one\ntwo'\nB=3", {"A": "one\ntwo", "B": "3"}),
    ('A="a\\tb \\"c\\" \\\\ $HOME \\$HOME"', {"A": 'a\tb "c" \\ /h $HOME'}),
    ('A="one\ntwo" # three\nB=1', {"A": "one\ntwo", "B": "1"}),
    ("export A=1", {"A": "1"}),
    ("A='open\nB=2", {"A": "'open", "B": "2"}),
    ("A='x'y", {"A": "'x'y"}),
    ("nonsense\n=1\nB=2", {"B": "2"}),
]


@pytest.mark.parametrize(("text", "found"), CASES)
def test_entries(text: str, found: dict[str, str]) -> None:
    assert parse(text, {"HOME": "/h"}) == found


@pytest.mark.parametrize("value", ["plain", "", '$HOME `x` \\ "q"', "two\nlines", 'it\'s\t"both"\\\n', "é\u2028"])
def test_what_the_sdk_sets_is_what_commands_see(start_agent: StartAgent, value: str) -> None:
    with start_agent().client() as client:
        assert run(client, build_set_env_command("SET_BY_SDK", value)).error is None
        assert run(client, "printf '%s' \"$SET_BY_SDK\" | od -An -tx1 | tr -d ' \\n'").texts() == (
            [value.encode().hex()] if value else []
        )


def test_order_of_precedence(start_agent: StartAgent) -> None:
    agent = start_agent(env={"A": "daemon", "B": "daemon", "C": "daemon", "EXECD_ACCESS_TOKEN": "secret"})
    agent.env_file.write_text("B=file\nC=file\n")
    with agent.client(X_EXECD_ACCESS_TOKEN="secret") as client:
        seen = run(client, "echo $A $B $C; env", envs={"C": "request", "PWD": "/nowhere"}, cwd="/usr").texts()
    assert seen[0] == "daemon file request"
    assert "PWD=/usr" in seen
    assert f"EXECD_ENVS={agent.env_file}" in seen
    assert not any("secret" in line for line in seen)
    assert not any(line.startswith("LC_CTYPE=") for line in seen)  # Python's own addition


def test_without_a_name_it_is_a_file_of_this_user_in_the_temporary_folder(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    with start_agent(env={"EXECD_ENVS": "", "TMPDIR": str(tmp_path)}).client() as client:
        assert run(client, build_set_env_command("SET_BY_SDK", "kept")).error is None
        assert run(client, 'echo "$SET_BY_SDK"').texts() == ["kept"]
    [made] = tmp_path.iterdir()
    assert (made.name, made.stat().st_mode & 0o777) == (f".opensandbox-env-{os.geteuid()}", 0o600)
    assert with_env_file({"EXECD_ENVS": "/mine"}) == {"EXECD_ENVS": "/mine"}


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files to others")
def test_a_file_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    given = {"TMPDIR": str(tmp_path)}
    path = tmp_path / f".opensandbox-env-{os.geteuid()}"
    path.touch()
    os.chown(path, 12345, 12345)
    assert with_env_file(given) == given
    path.unlink()
    path.symlink_to("/etc/environment")
    assert with_env_file(given) == given
    path.unlink()
    os.mkfifo(path)
    assert with_env_file(given) == given
