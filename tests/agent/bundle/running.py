"""Programs in an empty file system that has a bundle and nothing else, and agents that they are."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.support.servers import free_port

from shoal_agent.bundle.build import PLACE


def alone(bundle: Path, *options: str) -> list[str]:
    """What to put before a command so that it finds the bundle, in its place and read-only, and nothing else."""
    own = ["--tmpfs", "/", "--ro-bind", str(bundle), PLACE, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return ["bwrap", "--unshare-user", "--die-with-parent", "--clearenv", *own, *options]


def this_machine() -> list[str]:
    """What to put before a command so that it finds this machine's files, in a root of its own.

    Without the places below which container engines mount and unmount all the time: bubblewrap fails where a mount goes
    away while it binds them.
    """
    kept = [each for each in Path("/").iterdir() if each.name not in ("proc", "run", "sys", "var")]
    kept += [each for each in Path("/var").iterdir() if each.name != "lib"]
    options = ["bwrap", "--proc", "/proc"]
    for each in kept:
        if each.is_symlink():
            options += ["--symlink", str(each.readlink()), str(each)]
        elif each.is_dir():
            options += ["--dev-bind", str(each), str(each)]
    return options


@contextmanager
def answering(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[httpx.Client]:
    """The command with a ``--port`` of its own, once an agent answers there."""
    port = free_port()
    process = subprocess.Popen([*command, "--port", str(port)], env=env, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            _await(client, process)
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _await(client: httpx.Client, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            client.get("/ping")
        except httpx.ConnectError:
            time.sleep(0.01)
        else:
            return
    process.kill()
    raise AssertionError(f"no agent answers: {process.communicate()[1][-2000:]}")
