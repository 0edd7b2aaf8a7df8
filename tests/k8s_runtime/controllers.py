"""What the small controllers share that stand in for the real ones, and the definitions that both work on.

Each looks at every object of its namespace a few times a second: it makes the pod, notes what became of it in the
status, suspends and resumes, and removes what has expired. What each keeps to stands in its own module; the assertions
of `test_real_controllers` run on both.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml  # type: ignore[import-untyped]  # comes with the kubernetes package, without types

from shoal_k8s.api import KubeApiError, KubeClient, Resource
from shoal_k8s.pods.objects import PODS

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
BATCH = Resource("sandbox.opensandbox.io", "v1alpha1", "batchsandboxes")
AGENT = Resource("agents.x-k8s.io", "v1beta1", "sandboxes")
POOL = Resource("sandbox.opensandbox.io", "v1alpha1", "pools")
SNAPSHOT = Resource("sandbox.opensandbox.io", "v1alpha1", "sandboxsnapshots")
KINDS = {
    BATCH: ("BatchSandbox", "batchsandbox"),
    AGENT: ("Sandbox", "sandbox"),
    POOL: ("Pool", "pool"),
    SNAPSHOT: ("SandboxSnapshot", "sandboxsnapshot"),
}
PERIOD = 0.1
Object = dict[str, Any]


async def install(client: KubeClient, resource: Resource) -> None:
    """The definition of ``resource``: the real one from SHOAL_TEST_CRDS, else one that lets everything pass."""
    with suppress(KubeApiError):
        await client.get(CRDS, None, str(resource), msgspec.Raw)
        return
    try:
        await client.create(CRDS, None, _real(resource) or _open(resource), msgspec.Raw)
    except KubeApiError as error:
        if error.status == 422:  # an API server that is older than the definition
            await client.create(CRDS, None, _open(resource), msgspec.Raw)
        elif not error.exists:
            raise
    for _ in range(200):
        with suppress(KubeApiError):
            await client.list(resource, "default", msgspec.Raw)
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{resource} does not become usable")


def _real(resource: Resource) -> Object | None:
    folder = os.environ.get("SHOAL_TEST_CRDS")
    file = Path(folder) / f"{resource.group}_{resource.plural}.yaml" if folder else None
    if file is not None and file.is_file():
        real: Object = yaml.safe_load(file.read_text())
        real["spec"].pop("conversion", None)  # its webhook is not here; one version is served
        real["spec"]["versions"] = [each for each in real["spec"]["versions"] if each["name"] == resource.version]
        return real
    return None


def _open(resource: Resource) -> Object:
    kind, singular = KINDS[resource]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "subresources": {"status": {}},
    }
    named = {"kind": kind, "plural": resource.plural, "singular": singular, "listKind": f"{kind}List"}
    spec = {"group": resource.group, "scope": "Namespaced", "names": named, "versions": [version]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": str(resource), "annotations": {"api-approved.kubernetes.io": "unapproved, test only"}},
        "spec": spec,
    }


class Controller:
    """What all have in common.

    Attributes:
        failing: message with which pauses fail, while it is set.
    """

    resource: Resource

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace
        self.failing: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        await install(self.client, self.resource)
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            found = await self.client.list(self.resource, self.namespace, Object)
            for thing in found["items"]:
                with suppress(KubeApiError):  # somebody else was faster: the next round sees it
                    await self._look_after(thing)
            await asyncio.sleep(PERIOD)

    async def _look_after(self, thing: Object) -> None:
        if thing["metadata"].get("deletionTimestamp"):
            return
        until = thing["spec"].get(self.expiry)
        if until and datetime.fromisoformat(until) <= datetime.now(UTC):
            await self.client.delete(self.resource, self.namespace, thing["metadata"]["name"])
        else:
            await self.reconcile(thing, await self._pod(thing))

    expiry: str
    required: Object = {}
    """Fields that a status must have."""

    async def reconcile(self, thing: Object, pod: Object | None) -> None:
        raise NotImplementedError

    async def _pod(self, thing: Object) -> Object | None:
        try:
            return await self.client.get(PODS, self.namespace, self.pod_name(thing), Object)
        except KubeApiError:
            return None

    def pod_name(self, thing: Object) -> str:
        raise NotImplementedError

    async def make_pod(self, thing: Object, template: Object) -> None:
        owner = {
            "apiVersion": thing["apiVersion"],
            "kind": thing["kind"],
            "name": thing["metadata"]["name"],
            "uid": thing["metadata"]["uid"],
            "controller": True,
        }
        meta = {**template.get("metadata", {}), "name": self.pod_name(thing), "ownerReferences": [owner]}
        await self.client.create(PODS, self.namespace, {"metadata": meta, "spec": template["spec"]}, msgspec.Raw)

    async def drop_pod(self, thing: Object) -> None:
        """Ask for its end; it takes the grace period that it has."""
        with suppress(KubeApiError):
            await self.client.delete(PODS, self.namespace, self.pod_name(thing), grace_seconds=None)

    async def tell(self, thing: Object, status: Object, annotations: dict[str, str] | None = None) -> None:
        name, client = thing["metadata"]["name"], self.client
        if annotations is not None and annotations.items() - thing["metadata"].get("annotations", {}).items():
            body = {"metadata": {"annotations": annotations}}
            await client.patch(self.resource, self.namespace, name, body, msgspec.Raw)
        status = {**self.required, **thing.get("status", {}), **status}
        if status != thing.get("status", {}):
            path = self.resource.path(self.namespace, name, "status")
            body = {"status": status}
            await client._ask("PATCH", self.resource, path, msgspec.Raw, body=body, content_type=MERGE)


MERGE = "application/merge-patch+json"


def ready(pod: Object | None) -> bool:
    conditions = (pod or {}).get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def owned(thing: Object, pod: Object | None) -> Object | None:
    """The pod, if it is of this very object and not of an earlier one of that name."""
    owners = [] if pod is None else pod["metadata"].get("ownerReferences", [])
    return pod if any(each["uid"] == thing["metadata"]["uid"] for each in owners) else None


def going(pod: Object | None) -> bool:
    return pod is not None and "deletionTimestamp" in pod["metadata"]


def condition(kind: str, message: str, status: str = "True", reason: str | None = None) -> Object:
    if reason is None:
        reason = {"Ready": "DependenciesReady" if status == "True" else "DependenciesNotReady"}.get(kind, kind)
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
