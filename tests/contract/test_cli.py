"""The unmodified CLI (``opensandbox-cli`` on PyPI) against the local runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.contract.key import KEY
from tests.support.servers import ServerProcess

CLI = Path(sys.executable).with_name("opensandbox")


@pytest.fixture
def cli(server: ServerProcess, tmp_path: Path) -> Any:
    def run(*words: str) -> str:
        done = subprocess.run(
            [CLI, "--api-key", KEY, "--domain", f"127.0.0.1:{server.port}", "--no-color", *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_whole_life(cli: Any) -> None:
    words = ["--image", "host", "--timeout", "5m", "--metadata", "made=by-cli", "--skip-health-check", "-o", "json"]
    made = json.loads(cli("sandbox", "create", *words, "--entrypoint", "sleep", "--entrypoint", "600"))
    sandbox = made["id"]
    listed = json.loads(cli("sandbox", "list", "--state", "Running", "--metadata", "made=by-cli", "-o", "json"))
    assert sandbox in json.dumps(listed)
    assert sandbox in cli("sandbox", "get", sandbox, "-o", "json")
    cli("sandbox", "renew", sandbox, "--timeout", "30m")
    cli("sandbox", "pause", sandbox)
    assert "Paused" in cli("sandbox", "get", sandbox, "-o", "json")
    cli("sandbox", "resume", sandbox, "--skip-health-check")
    assert "Running" in cli("sandbox", "get", sandbox, "-o", "json")
    assert f"/sandboxes/{sandbox}/proxy/8000" in cli("sandbox", "endpoint", sandbox, "--port", "8000", "-o", "json")
    cli("diagnostics", "logs", sandbox, "--scope", "container")
    cli("sandbox", "kill", sandbox)
    assert sandbox not in cli("sandbox", "list", "-o", "json")
