"""Credentials that run out: the next request asks for a new one, and a wrong one is told as what it is."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]  # comes with the kubernetes package, without types
from tests.k8s_runtime.deployment import apply, manifests, rights

from shoal.errors import ConfigError, Forbidden
from shoal_k8s.api import ApiStatus, KubeApiError, KubeClient
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.failures import told_of_diagnostics
from shoal_k8s.pods.objects import PODS

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(120)]

PLUGIN = """
import json, sys
from datetime import UTC, datetime, timedelta
expires = datetime.now(UTC) + timedelta(seconds=1)
status = {"token": open(sys.argv[1]).read(), "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def account(namespace: str) -> str:
    """A token of the account that ``deploy/`` makes."""
    apply(rights(manifests("pod", namespace)))
    command = ["kubectl", "-n", namespace, "create", "token", "shoal"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


async def test_a_token_that_expires_is_asked_for_again(namespace: str, tmp_path: Path) -> None:
    good = await asyncio.to_thread(account, namespace)
    token, plugin, file = tmp_path / "token", tmp_path / "plugin.py", tmp_path / "kubeconfig"
    token.write_text("no-token-of-this-cluster")
    plugin.write_text(PLUGIN)
    given = yaml.safe_load(await asyncio.to_thread(Path(os.environ["KUBECONFIG"]).read_text))
    execute = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(plugin), str(token)],
        "interactiveMode": "Never",
    }
    given["users"] = [{"name": given["contexts"][0]["context"]["user"], "user": {"exec": execute}}]
    file.write_text(yaml.safe_dump(given))
    client = KubeClient(ApiConnection(str(file)))
    try:
        with pytest.raises(KubeApiError) as refused:
            await client.list(PODS, namespace, msgspec.Raw)
        assert refused.value.status == 401
        assert "credentials" in refused.value.as_shoal_error().message
        assert "no-token" not in str(refused.value)
        token.write_text(good)
        deadline = datetime.now(UTC) + timedelta(seconds=60)
        while True:
            try:
                await client.list(PODS, namespace, msgspec.Raw)
            except KubeApiError:
                assert datetime.now(UTC) < deadline, "the new token is never asked for"
                await asyncio.sleep(0.5)
            else:
                break
    finally:
        client.close()


def test_a_pods_own_identity_that_is_not_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG")
    with pytest.raises(ConfigError, match="KUBECONFIG"):
        ApiConnection(None)


def test_a_file_that_is_none_shows_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text("users: [hush-hush")
    with pytest.raises(ConfigError) as refused:
        ApiConnection(str(file))
    assert "hush" not in str(refused.value)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(("status", "told"), [(401, "credentials"), (403, "get pods/log is forbidden")])
def test_diagnostics_that_may_not_be_read_are_403(status: int, told: str) -> None:
    said = 'pods "x" is forbidden: User "u" cannot get resource "pods/log"'
    with pytest.raises(Forbidden, match=told) as refused, told_of_diagnostics():
        raise KubeApiError(status, ApiStatus(reason="Forbidden", message=said), "get pods/log")
    assert refused.value.code == "KUBERNETES::API_ERROR"
