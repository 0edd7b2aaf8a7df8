"""The real gateway on a cluster whose BatchSandboxes the test writes itself, status and all."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
import time
from typing import Any

import httpx
import urllib3
from tests.gateway_ingress.stand_in import Mode
from tests.k8s_runtime import controllers
from tests.support import real
from tests.support.servers import free_port

from shoal_k8s.api import KubeClient
from shoal_k8s.api.connection import ApiConnection

GROUP = "/apis/sandbox.opensandbox.io/v1alpha1"


class RealGateway:
    """The program, on a port of loopback, with a namespace of its own for its sandboxes, which are all at 127.0.0.1."""

    def __init__(self, mode: Mode, keys: str = "") -> None:
        self.mode = mode
        self.port = free_port()
        self._connection = ApiConnection(os.environ["KUBECONFIG"])
        self._namespace = f"shoal-gateway-{os.urandom(4).hex()}"
        asyncio.run(self._install())
        self._send("POST", "/api/v1/namespaces", {"metadata": {"name": self._namespace}})
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        flags = ["--port", str(self.port), "--mode", mode, "--provider-type", "batchsandbox"]
        flags += ["--secure-access-keys", keys] if keys else []
        self._process = subprocess.Popen([real.part("ingress"), *flags], stdout=self._log, stderr=self._log)
        while not self._answers():
            if self._process.poll() is not None:
                said = self._said()
                self.stop()
                raise ValueError(said)
            time.sleep(0.05)

    def add(self, sandbox: str, *, token: str = "", ready: bool = True) -> None:
        """A BatchSandbox as a controller would leave it; returns once the gateway has heard of it."""
        annotations = {"sandbox.opensandbox.io/endpoints": json.dumps(["127.0.0.1"])}
        if token:
            annotations["opensandbox.io/secure-access-token"] = token
        body: dict[str, Any] = {
            "apiVersion": "sandbox.opensandbox.io/v1alpha1",
            "kind": "BatchSandbox",
            "metadata": {"name": sandbox, "annotations": annotations},
            "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "sandbox", "image": "none"}]}}},
        }
        where = f"{GROUP}/namespaces/{self._namespace}/batchsandboxes"
        made = self._send("POST", where, body)
        if ready:
            counts = dict.fromkeys(("allocated", "ready", "replicas", "taskFailed", "taskPending"), 0)
            counts |= dict.fromkeys(("taskRunning", "taskSucceed", "taskUnknown"), 0) | {"ready": 1, "replicas": 1}
            self._send("PUT", f"{where}/{sandbox}/status", {**made, "status": counts})
        absent = 404 if not ready else 503
        while self._status_of(sandbox) in (404, absent):
            time.sleep(0.05)

    def stop(self) -> None:
        """End the program, and remove what it saw."""
        self._process.kill()
        self._process.wait()
        self._send("DELETE", f"/api/v1/namespaces/{self._namespace}", None)
        self._connection.close()
        self._log.close()

    def _status_of(self, sandbox: str) -> int:
        """Port 1 of the sandbox: who is let in finds nobody there."""
        url = f"http://127.0.0.1:{self.port}" + (f"/{sandbox}/1/" if self.mode == "uri" else "/")
        return httpx.get(url, headers={"OpenSandbox-Ingress-To": f"{sandbox}-1"}, trust_env=False).status_code

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/status.ok", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:]

    async def _install(self) -> None:
        """The resource's definition, unless the cluster has it."""
        client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
        await controllers.install(client, controllers.BATCH)
        client.close()

    def _send(self, method: str, path: str, body: Any) -> Any:
        answer = self._open(method, path, body)
        content = answer.read()
        assert answer.status < 300, content
        return json.loads(content)

    def _open(self, method: str, path: str, body: Any) -> urllib3.BaseHTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        return self._connection.open(
            method, path, body=content, content_type="application/json", timeout=urllib3.Timeout(30)
        )
