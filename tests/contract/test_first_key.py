"""``shoal`` with no configuration at all, as a newcomer starts it, and the clients that find its key."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.support.servers import SHOAL, free_port


@contextmanager
def serving(home: Path, *flags: str) -> Iterator[str]:
    """The URL of a server whose user has this home and no configuration."""
    port = free_port()
    configuring = ("SANDBOX_CONFIG_PATH", "OPENSANDBOX_SERVER_API_KEY", "OPENSANDBOX_INSECURE_SERVER")
    env = {name: value for name, value in os.environ.items() if name not in configuring} | {"HOME": str(home)}
    log = home / "log"
    with log.open("wb") as said:
        process = subprocess.Popen([SHOAL, "--port", str(port), *flags], env=env, stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert process.poll() is None, log.read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_it_asks_for_the_key_that_it_made_and_the_command_line_has_it(tmp_path: Path) -> None:
    with serving(tmp_path) as base:
        key = (tmp_path / ".opensandbox" / "keys" / "api-key").read_text().strip()
        assert httpx.get(f"{base}/v1/sandboxes").status_code == 401
        assert httpx.get(f"{base}/v1/sandboxes", headers={"OPEN-SANDBOX-API-KEY": key}).status_code == 200
        env = {name: value for name, value in os.environ.items() if not name.startswith("OPEN_SANDBOX")}
        command = [str(Path(sys.executable).with_name("osb")), "sandbox", "list"]
        listed = subprocess.run(
            command, env=env | {"HOME": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
        )
        assert listed.returncode == 0, listed.stdout + listed.stderr


def test_told_not_to_it_makes_none(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-key") as base:
        assert httpx.get(f"{base}/v1/sandboxes").status_code == 200
        assert not (tmp_path / ".opensandbox" / "keys" / "api-key").exists()
