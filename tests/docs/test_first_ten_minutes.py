"""Each block of commands of docs/first-ten-minutes.md runs as it stands, on a port and in a home of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.docs.pages import ROOT, parts
from tests.support.servers import free_port

PAGE = {part.heading: part.blocks for part in parts("first-ten-minutes.md")}
IMAGE = "python:3.12"
"""The one that the page uses."""
OURS = "shoal-test/debian:latest"
"""One that is at hand, with Python as well."""


class Newcomer:
    """Somebody with an empty home and two terminals."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        (home / "job.py").write_text(block("From Python", "python"))
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("OPEN_SANDBOX_", "SHOAL_"))}
        self.env = {**kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    @contextmanager
    def serving(self, command: str) -> Iterator[None]:
        """The first terminal: a server that runs until the end."""
        line = f"exec {command} --port {self.port}"
        with (self.home / "server.log").open("wb") as log:
            server = subprocess.Popen(["sh", "-c", line], cwd=self.home, env=self.env, stdout=log, stderr=log)
        try:
            while not self._answers():
                assert server.poll() is None, (self.home / "server.log").read_text()
            yield
        finally:
            server.terminate()
            server.wait(60)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=10).is_success
        except httpx.TransportError:
            return False

    def types(self, commands: str, text: str = "") -> str:
        """The second terminal: what the commands print. ``text`` is for those that read."""
        commands = commands.replace("8080", str(self.port)).replace(". .venv/bin/activate\n", "")
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=self.home,
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (done.stdout, done.stderr, (self.home / "server.log").read_text()[-3000:])
        return done.stdout


def block(heading: str, language: str, place: int = 0) -> str:
    """A block of the page."""
    return [text for kind, text in PAGE[heading] if kind == language][place]


def whole_job(output: str) -> None:
    """What ``job.py`` prints."""
    created, *lines, last = output.splitlines()
    assert created.startswith("created ")
    assert lines[:4] == ["   line 1", "   line 2", "   line 3", "exit code 0"]
    assert lines[4:6] == ["file: <h1>Hello from a sandbox</h1>", "code: 42.5"]
    assert re.fullmatch(r"page: http://127\.0\.0\.1:\d+/v1/sandboxes/.*/proxy/8000", lines[6])
    assert last == "open it, then press Enter gone"


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    return Newcomer(tmp_path)


def test_the_sdks_version_is_the_one_that_is_tested() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["demo"]
    assert f"pip install {' '.join(wanted)}\n" in block("Install", "sh")


@pytest.mark.timeout(900)
def test_on_this_machine(newcomer: Newcomer) -> None:
    with newcomer.serving(block("Start the server", "sh").strip()):
        assert newcomer.types(block("Start the server", "sh", 1)) == "Linux\n"
        output = newcomer.types(block("From the terminal", "sh"))
        assert output.startswith("line 1\nline 2\nline 3\n")
        assert "index.html" in output
        assert "<h1>Hello from a sandbox</h1>" in output
        assert "Running" in output
        whole_job(newcomer.types(block("From Python", "sh"), "\n"))
        assert newcomer.types("shoal ls -q") == ""


@pytest.mark.needs("docker")
@pytest.mark.needs("debian")
@pytest.mark.timeout(900)
def test_on_docker(newcomer: Newcomer) -> None:
    *before, serve = block("On Docker", "sh").splitlines()
    newcomer.types("\n".join(line for line in before if not line.startswith("pip ")))
    newcomer.env["OPEN_SANDBOX_DOMAIN"] = f"127.0.0.1:{newcomer.port}"
    with newcomer.serving(serve):
        version, _, job = newcomer.types(block("On Docker", "sh", 1).replace(IMAGE, OURS), "\n").partition("\n")
        assert version.startswith("Python 3.")
        whole_job(job)
        terminal = block("From the terminal", "sh").replace("-d)", f"-d --image {OURS})")
        assert "<h1>Hello from a sandbox</h1>" in newcomer.types(terminal)


def test_what_the_kubernetes_part_names_is_there() -> None:
    lines = block("On Kubernetes", "sh").splitlines()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in lines if line.startswith("make ")] == ["image"]
    assert "image" in targets
    named = [word for line in lines for word in line.split() if word.startswith("deploy/")]
    assert named == ["deploy/pod"]
    assert (ROOT / named[0] / "kustomization.yaml").is_file()
    secret = re.findall(r"name: (\S+)\n\s+key: (\S+)", (ROOT / "deploy/base/server.yaml").read_text())
    assert secret == [("shoal-api-key", "key")]
    assert f"generic {secret[0][0]} --from-literal={secret[0][1]}=" in "\n".join(lines)
