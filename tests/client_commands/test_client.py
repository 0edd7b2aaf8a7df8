"""The commands of a person at a terminal, as real processes against a real server and a sandbox with the agent."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.support.servers import SHOAL, ServerProcess

KEY = "client-key"


class Terminal(NamedTuple):
    """``shoal`` with a server in its environment, and a running sandbox there."""

    env: dict[str, str]
    sandbox: str

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A command under way."""
        return subprocess.Popen(
            [SHOAL, *words], env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *words: str, text: bytes = b"", code: int = 0) -> tuple[str, str]:
        """What it printed on both streams; it must exit with ``code``."""
        with self.start(*words) as process:
            out, err = process.communicate(text, timeout=60)
        assert process.returncode == code, (out, err)
        return out.decode(), err.decode()

    def inside(self, *words: str, code: int = 0) -> tuple[str, str]:
        """``shoal exec`` in the sandbox."""
        return self.run("exec", self.sandbox, *words, code=code)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    home = tmp_path_factory.mktemp("client")
    server = ServerProcess(home, f'[local]\nstate_dir = "{home}/local"\n', env={"OPENSANDBOX_SERVER_API_KEY": KEY})
    server.start()
    try:
        yield Terminal(_env(home, server.base), _sandbox(server.base))
    finally:
        with httpx.Client(base_url=server.base, headers={"OPEN-SANDBOX-API-KEY": KEY}) as client:
            for each in client.get("/v1/sandboxes").json()["items"]:
                client.delete(f"/v1/sandboxes/{each['id']}")
        server.stop()


def _env(home: Path, base: str) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "OPEN_SANDBOX_DOMAIN": base, "OPEN_SANDBOX_API_KEY": KEY}


def _sandbox(base: str) -> str:
    """A running sandbox; its agent starts with the first request."""
    body = {
        "image": {"uri": "host"},
        "entrypoint": ["sh", "-c", "echo listening; exec tail -f /dev/null"],
        "resourceLimits": {},
        "timeout": 3600,
        "metadata": {"suite": "client"},
    }
    with httpx.Client(base_url=base, headers={"OPEN-SANDBOX-API-KEY": KEY}, timeout=60) as client:
        made: dict[str, Any] = client.post("/v1/sandboxes", json=body).raise_for_status().json()
        client.get(f"/v1/sandboxes/{made['id']}?wait=Running&timeout=50").raise_for_status()
        return str(made["id"])


def test_output_arrives_on_its_stream_and_the_exit_code_is_passed_on(terminal: Terminal) -> None:
    assert terminal.inside("--", "echo", "hello") == ("hello\n", "")
    assert terminal.inside("-c", "echo out; echo err >&2; exit 7", code=7) == ("out\n", "err\n")
    assert terminal.inside("-e", "A=x y", "-w", "/tmp", "--", "sh", "-c", 'echo "$A $PWD"') == ("x y /tmp\n", "")
    assert terminal.inside("-c", "kill -9 $$", code=137)[1] == "shoal: signal: killed\n"
    assert "no such file" in terminal.inside("--", "/nonexistent", code=126)[1]
    assert terminal.inside("--timeout", "0.2", "--", "sleep", "60", code=137)[0] == ""


@pytest.mark.parametrize("before", [True, False])
def test_output_for_machines(terminal: Terminal, before: bool) -> None:
    words = ["--json", terminal.sandbox] if before else [terminal.sandbox, "--json"]
    out, err = terminal.run("exec", *words, "-c", "echo out; echo err >&2; exit 7", code=7)
    said = [json.loads(line) for line in out.splitlines()]
    assert (sorted(each["text"] for each in said[:-1]), err) == (["err\n", "out\n"], "")
    assert {each["type"] for each in said[:-1]} == {"stdout", "stderr"}
    assert said[-1] == {"type": "exit", "code": 7, "why": ""}


def test_an_interrupt_reaches_the_command_and_its_last_words_are_printed(terminal: Terminal) -> None:
    script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    with terminal.start("exec", terminal.sandbox, "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"bye\n", 9), err  # bash itself may say that its sleep was ended


def test_an_id_is_known_by_its_beginning(terminal: Terminal) -> None:
    assert terminal.run("exec", terminal.sandbox[:8], "--", "true") == ("", "")
    assert "there is no sandbox 'nothing'" in terminal.run("exec", "nothing", "--", "true", code=125)[1]


def test_files_go_in_and_out_with_their_modes(terminal: Terminal, tmp_path: Path) -> None:
    source = tmp_path / "notes.txt"
    source.write_bytes(os.urandom(300_000))
    source.chmod(0o640)
    terminal.run("cp", str(source), f"{terminal.sandbox}:/tmp/")
    assert terminal.inside("--", "stat", "-c", "%a %s", "/tmp/notes.txt")[0] == "640 300000\n"
    terminal.run("cp", f"{terminal.sandbox}:/tmp/notes.txt", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o640
    terminal.run("cp", "-", f"{terminal.sandbox}:/tmp/piped", text=b"from a pipe")
    assert terminal.run("cp", f"{terminal.sandbox}:/tmp/piped", "-")[0] == "from a pipe"


def test_a_directory_is_copied_whole_without_its_links(terminal: Terminal, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / "file").write_text("two")
    (tree / "link").symlink_to("/etc/passwd")
    _, err = terminal.run("cp", str(tree), f"{terminal.sandbox}:/tmp/")
    assert "link: a symbolic link, left out" in err
    terminal.run("cp", f"{terminal.sandbox}:/tmp/tree", str(tmp_path / "back"))
    found = sorted(str(path.relative_to(tmp_path / "back")) for path in (tmp_path / "back").rglob("*"))
    assert found == ["sub", "sub/empty", "sub/file"]
    assert (tmp_path / "back" / "sub" / "file").read_text() == "two"


def test_a_copy_that_cannot_be_leaves_nothing(terminal: Terminal, tmp_path: Path) -> None:
    assert "no such file" in terminal.run("cp", f"{terminal.sandbox}:/nowhere", str(tmp_path), code=1)[1]
    assert "No such file" in terminal.run("cp", str(tmp_path / "none"), f"{terminal.sandbox}:/tmp/none", code=1)[1]
    assert "one of the two" in terminal.run("cp", "a", "b", code=1)[1]
    assert list(tmp_path.iterdir()) == []


def test_lists_for_people_and_for_machines(terminal: Terminal) -> None:
    head, row = terminal.run("ls", "--label", "suite=client")[0].splitlines()
    assert head.split() == ["ID", "STATE", "IMAGE", "CREATED", "EXPIRES", "LABELS"]
    assert row.split()[:3] == [terminal.sandbox, "Running", "host"]
    assert terminal.run("ls", "-q", "--label", "suite=client")[0] == terminal.sandbox + "\n"
    assert terminal.run("ls", "-q", "--state", "Paused") == ("", "")
    [line] = terminal.run("ls", "--json", "--label", "suite=client")[0].splitlines()
    assert json.loads(line)["id"] == terminal.sandbox
    assert "listening" in terminal.run("logs", terminal.sandbox)[0] + terminal.run("logs", terminal.sandbox)[1]


def test_a_terminal_of_a_pipe_runs_a_shell(terminal: Terminal) -> None:
    out, _ = terminal.run("shell", terminal.sandbox, text=b"echo typed $((40+2)); exit 3\n", code=3)
    assert "typed 42" in out
    assert terminal.run("shell", terminal.sandbox, "-c", "echo once; exit 5", code=5)[0].split() == ["once"]


def test_what_is_typed_before_the_terminal_is_connected_reaches_the_shell(terminal: Terminal) -> None:
    keys, screen = pty.openpty()
    try:
        os.write(keys, b"echo ahead $((40+2)); exit 6\n")
        with subprocess.Popen(
            [SHOAL, "shell", terminal.sandbox], env=terminal.env, stdin=screen, stdout=subprocess.PIPE
        ) as process:
            out, _ = process.communicate(timeout=60)
    finally:
        os.close(keys)
        os.close(screen)
    assert (b"ahead 42" in out, process.returncode) == (True, 6), out


def test_wrong_usage_is_told_before_anything_is_made(terminal: Terminal) -> None:
    assert "give a command" in terminal.run("run", "--json", code=125)[1]
    assert "usage: shoal exec ID " in terminal.inside("--nonsense", "--", "true", code=2)[1]


def test_a_detached_sandbox_stays_and_is_ended(terminal: Terminal) -> None:
    words = ("--label", "made=here", "--memory", "64Mi", "--json", "-c", "echo begun")
    *said, last = (json.loads(line) for line in terminal.run("run", "-d", *words)[0].splitlines())
    assert [each["type"] for each in said] == ["stdout", "exit"]
    made = last["id"]
    assert terminal.run("ls", "-q", "--label", "made=here")[0] == made + "\n"
    out, err = terminal.run("rm", "--json", made[:8], "nothing", code=1)
    assert (json.loads(out), err) == ({"id": made}, "shoal: there is no sandbox 'nothing'\n")
    assert terminal.run("ls", "-q", "--label", "made=here") == ("", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_a_signal_ends_leaves_no_sandbox(terminal: Terminal, number: signal.Signals) -> None:
    with terminal.start("run", "--label", "ended=run", "-c", "echo ready; sleep 600") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (128 + number, b"")
    assert terminal.run("ls", "-q", "--label", "ended=run") == ("", "")


@pytest.mark.parametrize("words", [["ls"], ["rm", "x"], ["run", "--", "true"]])
def test_an_interrupt_while_a_server_says_nothing_is_no_traceback(terminal: Terminal, words: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = f"127.0.0.1:{silent.getsockname()[1]}"
        with terminal.start(words[0], "--server", server, *words[1:]) as process:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                process.send_signal(signal.SIGINT)
                assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130


@pytest.mark.parametrize("command", ["exec", "run"])
def test_a_reader_that_has_seen_enough_is_no_failure_of_the_server(terminal: Terminal, command: str) -> None:
    words = ["run"] if command == "run" else ["exec", terminal.sandbox]
    with terminal.start(*words, "-c", "seq 100000") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"1\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
    assert terminal.run("ls", "-q")[0] == terminal.sandbox + "\n"


def test_a_failed_run_leaves_no_sandbox_and_says_why(terminal: Terminal) -> None:
    _, err = terminal.run("run", "--image", "no-such-image", "--", "true", code=125)
    assert err.startswith("shoal: ")
    assert "no-such-image" in err
    assert "give a command" in terminal.run("run", code=125)[1]
    assert terminal.run("ls", "-q")[0] == terminal.sandbox + "\n"


def test_the_server_and_the_key_are_found_or_named(terminal: Terminal, tmp_path: Path) -> None:
    bare = {key: value for key, value in terminal.env.items() if not key.startswith("OPEN_SANDBOX_")}
    kept = tmp_path / ".opensandbox" / "config.toml"
    kept.parent.mkdir()
    kept.write_text(f'[connection]\ndomain = "{terminal.env["OPEN_SANDBOX_DOMAIN"]}"\napi_key = "{KEY}"\n')
    assert Terminal({**bare, "HOME": str(tmp_path)}, "").run("ls", "-q")[0] == terminal.sandbox + "\n"
    assert "wrong API key" in terminal.run("ls", "--api-key", "other", code=1)[1]
    assert "cannot be reached" in terminal.run("ls", "--server", "127.0.0.1:9", code=1)[1]
    assert "is no address" in terminal.run("ls", "--server", "ftp://x", code=1)[1]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_offers_commands(terminal: Terminal, shell: str) -> None:
    script, _ = terminal.run("completion", shell)
    assert "complete -F _shoal shoal" in script
    assert script.startswith("autoload") == (shell == "zsh")


def test_bash_offers_every_command_that_help_lists_and_ids_where_they_are_taken(terminal: Terminal) -> None:
    script, _ = terminal.run("completion", "bash")
    listed = re.findall(r"^ {4}([a-z-]+)(?= |$)", terminal.run("--help")[0], re.MULTILINE)
    assert {"serve", "exec", "completion"} <= {*listed}
    assert _offered(terminal, script, "") == listed
    assert _offered(terminal, script, "e") == ["exec"]
    for command in ("exec", "shell", "logs", "rm"):
        assert terminal.sandbox in _offered(terminal, script, command, "")


def _offered(terminal: Terminal, script: str, *words: str) -> list[str]:
    """What bash would offer for the last of the words after ``shoal``."""
    probe = f"{script}\nCOMP_WORDS=(shoal {shlex.join(words)}); COMP_CWORD={len(words)}; _shoal; echo ${{COMPREPLY[@]}}"
    env = {**terminal.env, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()
