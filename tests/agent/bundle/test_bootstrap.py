"""bootstrap.sh, by the shells that images have: commands, statuses, signals, variables, an agent that dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.agent.bundle.running import this_machine

import shoal_agent
from shoal_agent.bundle.build import PLACE

pytestmark = [pytest.mark.needs("bubblewrap")]

SCRIPT = Path(shoal_agent.__file__).parent / "bootstrap.sh"
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
AGENT = """#!/bin/sh
echo "$@" >>"{home}/arguments"
env >"{home}/agent.env"
echo $$ >>"{home}/pids"
if [ "$1" = --init ]; then shift 2; exec "$@"; fi
if [ -n "$2" ]; then echo "running 1" >"$2"; sleep 0.2; echo "done {hook}" >"$2"; fi
trap 'echo ended >>"{home}/ended"; exit 0' TERM
while :; do sleep 0.05; done
"""


class Home:
    """A folder with an agent that only says how it was started.

    Args:
        first: whether the script runs as process 1 of a namespace of its own.
    """

    def __init__(self, path: Path, shell: list[str], *, first: bool, hook: int = 0) -> None:
        self.path = path
        self.first = first
        self._shell = shell
        agent = path / "execd"
        agent.write_text(AGENT.format(home=path, hook=hook))
        agent.chmod(0o755)

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        around = [*this_machine(), "--unshare-pid", "--die-with-parent"]
        around += ["--as-pid-1"] if self.first else []
        return subprocess.Popen(
            [*around, *self._shell, str(SCRIPT), *arguments],
            env={
                "PATH": os.environ["PATH"],
                "EXECD": str(self.path / "execd"),
                "EXECD_ENVS": str(self.path / "e/nv"),
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.path,
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **env)
        out, err = process.communicate("input\n", timeout=30)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def await_lines(self, name: str, number: int) -> list[str]:
        path, deadline = self.path / name, time.monotonic() + 30
        while not path.exists() or len(path.read_text().splitlines()) < number:
            assert time.monotonic() < deadline, f"{name} never had {number} lines"
            time.sleep(0.01)
        return path.read_text().splitlines()

    def script(self, process: subprocess.Popen[str]) -> int:
        """The process that a started script is, or has become: below bubblewrap, and below its init if that has one."""
        pid = process.pid
        for _ in range(1 if self.first else 2):
            children = Path(f"/proc/{pid}/task/{pid}/children")
            deadline = time.monotonic() + 20
            while not children.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            pid = int(children.read_text().split()[0])
        return pid


@pytest.fixture(params=sorted(SHELLS))
def shell(request: pytest.FixtureRequest) -> list[str]:
    found = SHELLS[request.param]
    if shutil.which(found[0]) is None:
        pytest.skip(f"{found[0]} is not installed")
    return found


@pytest.fixture(params=[True, False], ids=["first", "under-init"])
def home(request: pytest.FixtureRequest, shell: list[str], tmp_path: Path) -> Home:
    return Home(tmp_path, shell, first=request.param)


def test_the_status_is_the_commands(home: Home) -> None:
    assert home.run("sh", "-c", "exit 7").returncode == 7
    assert home.run("sh", "-c", "kill -KILL $$").returncode in (137, -9)
    assert home.run("/no/such/command").returncode == 127


@pytest.mark.parametrize(
    ("arguments", "env", "printed"),
    [
        (["echo", "a  b", "$HOME"], {}, "a  b $HOME"),
        (["-c", "echo $((1 + 1)) $0", "name"], {}, "2 name"),
        (["echo", "unused"], {"BOOTSTRAP_CMD": "echo $((2 + 2))"}, "4"),
        ([], {"BOOTSTRAP_SHELL": "cat"}, "input"),
        (["cat"], {}, "input"),
    ],
)
def test_what_is_run(home: Home, arguments: list[str], env: dict[str, str], printed: str) -> None:
    assert home.run(*arguments, **env).stdout == f"{printed}\n"


def test_the_command_does_not_see_what_is_the_agents_alone(home: Home) -> None:
    given = {"EXECD_ACCESS_TOKEN": "t", "EXECD_ACCESS_TOKEN_SHA256": "d", "KEPT": "k"}
    done = home.run("sh", "-c", f"while ! [ -s {home.path}/agent.env ]; do sleep 0.01; done; env", **given)
    assert not {line for line in done.stdout.splitlines() if line.startswith("EXECD_ACCESS")}
    assert {"KEPT=k", f"EXECD_ENVS={home.path}/e/nv"} <= set(done.stdout.splitlines())
    assert "EXECD_ACCESS_TOKEN=t" in (home.path / "agent.env").read_text()
    assert (home.path / "e/nv").is_file()


def test_variables_go_elsewhere_where_their_file_cannot_be(home: Home) -> None:
    (home.path / "file").touch()
    env = {"EXECD_ENVS": str(home.path / "file/env"), "TMPDIR": str(home.path)}
    done = home.run("sh", "-c", 'echo here >>"$EXECD_ENVS"; echo "$EXECD_ENVS"', **env)
    assert done.stdout == f"{home.path}/.opensandbox-env-{os.getuid()}\n"
    assert "cannot be written" in done.stderr


def test_a_script_before_it_is_sourced_and_ends_it_if_it_fails(home: Home) -> None:
    script = home.path / "pre.sh"
    script.write_text("export FROM_SCRIPT=yes\n")
    assert home.run("sh", "-c", "echo $FROM_SCRIPT", EXECD_BOOTSTRAP_PRE_SCRIPT=str(script)).stdout == "yes\n"
    script.write_text("return 5\n")
    done = home.run("echo", "never", EXECD_BOOTSTRAP_PRE_SCRIPT=str(script))
    assert (done.returncode, done.stdout) == (5, "")


def test_the_agent_can_take_the_place_of_the_first_process(home: Home) -> None:
    done = home.run("sh", "-c", "exit 4", EXECD_INIT="true")
    assert done.returncode == 4
    assert (home.path / "arguments").read_text() == "--init -- sh -c exit 4\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command_whose_status_counts(home: Home, number: signal.Signals) -> None:
    if home.first and number is signal.SIGINT:
        pytest.skip("as process 1 it needs the bundle's interpreter for that: the last test here")
    word = number.name.removeprefix("SIG")
    loop = f"trap 'exit 9' {word}; echo >ready; while :; do sleep 0.05; done"
    process = home.start("sh", "-c", loop)
    home.await_lines("ready", 1)
    os.kill(home.script(process), number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (9, "", "")


def test_an_agent_that_dies_is_started_again_and_the_command_goes_on(home: Home) -> None:
    script = "while ! [ -s pids ]; do sleep 0.01; done; kill -KILL $(head -1 pids); echo killed; read line; exit 3"
    process = home.start("sh", "-c", script)
    home.await_lines("pids", 2)
    out, err = process.communicate("\n", timeout=20)
    assert (process.returncode, out) == (3, "killed\n")
    assert "is started again" in err


def test_as_first_process_it_tells_the_agent_to_end(shell: list[str], tmp_path: Path) -> None:
    home = Home(tmp_path, shell, first=True)
    assert home.run("sh", "-c", "while ! [ -s pids ]; do sleep 0.01; done; sleep 0.1").returncode == 0
    assert home.await_lines("ended", 1) == ["ended"]


@pytest.mark.parametrize(("hook", "status"), [(0, 6), (1, 1)])
@pytest.mark.parametrize("first", [True, False])
def test_a_hook_before_the_start_is_waited_for(
    shell: list[str], tmp_path: Path, hook: int, status: int, *, first: bool
) -> None:
    home = Home(tmp_path, shell, first=first, hook=hook)
    done = home.run(
        "sh", "-c", 'echo "[$OPENSANDBOX_LIFECYCLE]"; exit 6', OPENSANDBOX_LIFECYCLE="{}", TMPDIR=str(tmp_path)
    )
    assert (done.returncode, done.stdout) == (status, "[]\n" if hook == 0 else "")
    assert (home.path / "arguments").read_text().startswith("--lifecycle-startup-status-file ")


def test_signals_of_a_command_are_at_their_defaults(bundle: Path, shell: list[str], tmp_path: Path) -> None:
    """As process 1, with the real agent in its place, whose interpreter can undo what the shell did."""
    around = [*this_machine(), "--unshare-pid", "--unshare-net", "--as-pid-1"]
    around += ["--tmpfs", "/opt", "--ro-bind", str(bundle), PLACE]
    done = subprocess.run(
        [*around, *shell, f"{PLACE}/bootstrap.sh", "grep", "SigIgn", "/proc/self/status"],
        env={"PATH": os.environ["PATH"], "EXECD_ENVS": str(tmp_path / "envs")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "SigIgn:\t0000000000000000\n"), done.stderr
