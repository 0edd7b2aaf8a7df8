"""A start that cannot succeed ends, with one line that says why."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.support.servers import SHOAL, free_port

pytestmark = pytest.mark.timeout(120)

KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {token: hush-hush}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def start(home: Path, kubernetes: str) -> subprocess.CompletedProcess[str]:
    """A server that will not come up; it returns once it has given up."""
    config = home / "shoal.toml"
    config.write_text(
        f'[server]\nhost = "127.0.0.1"\nport = {free_port()}\n[store]\npath = "{home / "shoal.db"}"\n'
        f'[runtime]\ntype = "kubernetes"\n[kubernetes]\nnamespace = "default"\n{kubernetes}\n'
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "SHOAL", "OPENSANDBOX"))}
    command = [str(SHOAL), "serve", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=90)


def test_an_api_server_that_is_away_ends_the_start(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    done = start(tmp_path, f'kubeconfig_path = "{file}"\nworkload_provider = "pod"')
    assert done.returncode != 0
    assert "shoal: kubernetes: The Kubernetes API server cannot be reached." in done.stderr
    assert "Traceback" not in done.stderr
    assert "hush-hush" not in done.stdout + done.stderr


def test_a_server_that_is_no_pod_says_what_to_set(tmp_path: Path) -> None:
    done = start(tmp_path, "")
    assert done.returncode != 0
    assert "kubeconfig_path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_provider_that_is_none_is_told_by_name(tmp_path: Path) -> None:
    done = start(tmp_path, 'workload_provider = "no-such-provider"')
    assert done.returncode != 0
    assert "no-such-provider" in done.stderr
    assert "Traceback" not in done.stderr
