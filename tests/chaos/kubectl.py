"""What the cluster holds of a run, as kubectl tells it: objects of sandboxes, and the pods behind them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

ID = "opensandbox.io/id"
SNAPSHOT = "opensandbox.io/snapshot-id"
RESOURCES = {"batchsandbox": "batchsandboxes.sandbox.opensandbox.io", "agent-sandbox": "sandboxes.agents.x-k8s.io"}
"""Provider → the resource that its sandboxes are; those of ``pod`` are their pods."""
SNAPSHOTS = "sandboxsnapshots.sandbox.opensandbox.io"
POOLS = "pools.sandbox.opensandbox.io"
ALLOCATED = "sandbox.opensandbox.io/alloc-status"
Object = dict[str, Any]


def kubectl(*words: str) -> str:
    """Its output; empty for what is not there."""
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "NotFound" in done.stderr, done.stderr
    return done.stdout


class Holdings:
    """The objects of one namespace.

    Args:
        provider: the workload provider of the servers.
    """

    def __init__(self, namespace: str, provider: str) -> None:
        self._namespace = namespace
        self._resource = RESOURCES.get(provider)

    def alive(self) -> set[str]:
        """Sandboxes that run, or that a controller keeps paused."""
        pods = self._staying("pods")
        ids = {pod["metadata"]["labels"][ID] for pod in pods if ID in pod["metadata"].get("labels", {})}
        names = {pod["metadata"]["name"] for pod in pods}
        return ids | {
            thing["metadata"]["labels"][ID]
            for thing in self._objects()
            if _paused(thing) or names.intersection(_allocated(thing))
        }

    def held(self) -> set[str]:
        """Sandboxes that the cluster has anything of."""
        return self.alive() | {thing["metadata"]["labels"][ID] for thing in self._objects()}

    def snapshots(self) -> set[str]:
        """Snapshots that a controller finished."""
        return {
            thing["metadata"]["labels"][SNAPSHOT]
            for thing in self._staying(SNAPSHOTS, "-l", SNAPSHOT)
            if thing.get("status", {}).get("phase") == "Succeed"
        }

    def everything(self, *kinds: str) -> list[str]:
        """Names of whatever is left of sandboxes, and of ``kinds`` at all."""
        own = ["pods,secrets,pvc"] + ([self._resource] if self._resource else [])
        found = self._names(",".join(own), "-l", ID)
        return found + [name for kind in kinds for name in self._names(kind)]

    def remove_pod(self, sandbox_id: str) -> None:
        """As a node that dies does."""
        self._delete("pods", sandbox_id, "--grace-period=0", "--force")

    def remove_object(self, sandbox_id: str) -> None:
        """As an operator does."""
        assert self._resource is not None
        self._delete(self._resource, sandbox_id)

    def _delete(self, kind: str, sandbox_id: str, *words: str) -> None:
        kubectl("-n", self._namespace, "delete", kind, "-l", f"{ID}={sandbox_id}", "--wait=false", *words)

    def _objects(self) -> list[Object]:
        return self._staying(self._resource, "-l", ID) if self._resource else []

    def _staying(self, kind: str, *words: str) -> list[Object]:
        """Those that are not on their way out."""
        found = json.loads(kubectl("-n", self._namespace, "get", kind, *words, "-o", "json"))["items"]
        return [thing for thing in found if "deletionTimestamp" not in thing["metadata"]]

    def _names(self, kind: str, *words: str) -> list[str]:
        return kubectl("-n", self._namespace, "get", kind, *words, "-o", "name").split()


def _paused(thing: Object) -> bool:
    paused = thing["spec"].get("pause") or thing.get("status", {}).get("phase") == "Paused"
    return bool(paused) or thing["spec"].get("operatingMode") == "Suspended"


def _allocated(thing: Object) -> list[str]:
    """Names of the pods that its pool gave it."""
    noted = thing["metadata"].get("annotations", {}).get(ALLOCATED)
    found: list[str] = json.loads(noted)["pods"] if noted else []
    return found


def native_pool(name: str, executor: str) -> Object:
    """The request that makes a pool of a controller, whose pods have no execd: its start is a script of one line."""
    start = "mkdir -p /opt/opensandbox && cd /opt/opensandbox && printf '#!/bin/sh\\nexec \"$@\"\\n' >bootstrap.sh"
    main = {
        "name": "sandbox",
        "image": "shoal-test/busybox:latest",
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", f"{start} && chmod 755 bootstrap.sh && exec sleep 36000"],
        "env": [{"name": "SANDBOX_MAIN_CONTAINER", "value": "sandbox"}],
    }
    sidecar = {
        "name": "task-executor",
        "image": executor,
        "imagePullPolicy": "IfNotPresent",
        "args": ["-listen-addr=0.0.0.0:5758", "-enable-sidecar-mode=true", "-main-container-name=sandbox"],
        "securityContext": {"capabilities": {"add": ["SYS_PTRACE", "SYS_ADMIN"]}},
    }
    spec = {
        "shareProcessNamespace": True,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [main, sidecar],
    }
    capacity = {"bufferMin": 1, "bufferMax": 2, "poolMin": 1, "poolMax": 6}
    return {"name": name, "template": {"spec": spec}, "capacitySpec": capacity}
