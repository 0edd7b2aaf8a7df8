"""Fields of a Pool, and of a BatchSandbox that got pods from one (docs/wire/kubernetes.md sections 4 and 18)."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import field

from shoal_k8s.api import Meta, Resource
from shoal_k8s.api.objects import KubeStruct

POOLS: Final = Resource("sandbox.opensandbox.io", "v1alpha1", "pools")
KIND: Final = "Pool"
ALLOCATED: Final = "sandbox.opensandbox.io/alloc-status"
RELEASED: Final = ("sandbox.opensandbox.io/alloc-release", "sandbox.opensandbox.io/alloc-released")
"""Annotations that name pods which are being recycled, or are: they may serve somebody else already."""
FINALIZER: Final = "pool.sandbox.opensandbox.io/pool-allocation"


class Capacity(KubeStruct):
    buffer_max: int = 0
    buffer_min: int = 0
    pool_max: int = 0
    pool_min: int = 0


class PoolObjectSpec(KubeStruct):
    capacity_spec: Capacity = field(default_factory=Capacity)


class PoolObjectStatus(KubeStruct):
    total: int = 0
    allocated: int = 0
    available: int = 0
    revision: str = ""


class PoolObject(KubeStruct):
    metadata: Meta
    spec: PoolObjectSpec = field(default_factory=PoolObjectSpec)
    status: PoolObjectStatus | None = None


class Allocated(KubeStruct):
    """The annotation `ALLOCATED`; older controllers leave ``pool_ref`` out."""

    pods: list[str] = []
    pool_ref: str | None = None


def allocated(annotations: dict[str, str]) -> Allocated:
    """The pods that the controller allocated; none if it says nothing, or nothing that can be read."""
    return _read(annotations.get(ALLOCATED), Allocated) or Allocated()


def kept(annotations: dict[str, str]) -> list[str]:
    """Of the allocated pods those that were not taken back; a release list that cannot be read may name any of them."""
    released: set[str] = set()
    for name in RELEASED:
        if name in annotations:
            found = _read(annotations[name], Allocated)
            if found is None:
                return []
            released.update(found.pods)
    return [pod for pod in allocated(annotations).pods if pod not in released]


def _read(text: str | None, kind: type[Allocated]) -> Allocated | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def manifest(name: str, template: dict[str, Any], capacity: dict[str, int]) -> dict[str, Any]:
    """A new Pool."""
    return {
        "apiVersion": f"{POOLS.group}/{POOLS.version}",
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {"template": template, "capacitySpec": capacity},
    }
