"""Both demos do what they tell, as this user and as an ordinary one, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

pytestmark = pytest.mark.timeout(500)

DEMOS = {"sdk": [sys.executable, "examples/demo.py"], "plain": [sys.executable, "-m", "shoal.cli.main", "demo"]}
ORDINARY = 12345


def homes(tmp_path: Path, user: int | None) -> dict[str, str]:
    """The environment of a user with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    if user is not None:
        for folder in (tmp_path.parents[1], tmp_path.parents[0], tmp_path):
            folder.chmod(0o755)
        os.chown(home, user, user)
    (kept := {**os.environ}).pop("DOCKER_HOST", None)
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}


def ordinary_user() -> int | None:
    """Whom to run as, to be no root: None if this process is none. Skips where that user cannot read this Python."""
    if os.geteuid() != 0:
        return None
    try:
        subprocess.run(
            [sys.executable, "-c", "import shoal"], user=ORDINARY, group=ORDINARY, extra_groups=[], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("an ordinary user cannot read this Python")
    return ORDINARY


@pytest.mark.parametrize("ordinary", [False, True])
@pytest.mark.parametrize("demo", DEMOS)
def test_it_does_the_whole_job(tmp_path: Path, demo: str, ordinary: bool) -> None:
    user = ordinary_user() if ordinary else None
    done = subprocess.run(
        DEMOS[demo],
        cwd=ROOT,
        env=homes(tmp_path, user),
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    steps = [line.removeprefix("* ") for line in done.stdout.splitlines() if line.startswith("* ")]
    assert (steps[0], steps[-1]) == ("Start the server", "Stop the server")
    if demo == "sdk":
        assert "> sandboxes left: 0" in done.stdout
        assert done.stdout.count("> <h1>Hello from a sandbox</h1>") == 2
        assert "> exit code 7" in done.stdout
        assert "its last line is 5914" in done.stdout


@pytest.mark.parametrize("demo", DEMOS)
def test_an_interrupt_ends_its_sandbox_and_its_server(tmp_path: Path, demo: str) -> None:
    with (tmp_path / "errors").open("wb") as errors:
        process = subprocess.Popen(
            DEMOS[demo], cwd=ROOT, env=homes(tmp_path, None), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(("* Let it live longer", "* Talk to it")):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert (process.returncode, (tmp_path / "errors").read_text()) == (130, "")
    assert rest.endswith("> exit code 0\n")
    running = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True)
    assert running.stdout == ""
