"""Which container a quota refuses a pod for, where the API server says only what is missing."""

from __future__ import annotations

from shoal_k8s.api.failures import quota_words, unmet_quota
from shoal_k8s.pods.objects import Container, PodSpec


def explained(said: str, spec: PodSpec) -> str:
    """What was said of the quota, with the containers that lack what it asks for."""
    words = quota_words(said)
    lacking = [f"{container.name!r} has no {key}" for key in unmet_quota(said) for container in _without(key, spec)]
    return f"{words} (container {', '.join(lacking)})" if lacking else words


def _without(key: str, spec: PodSpec) -> list[Container]:
    kind, _, name = key.rpartition(".")
    return [each for each in [*spec.init_containers, *spec.containers] if not _says(each, kind or "requests", name)]


def _says(container: Container, kind: str, name: str) -> bool:
    """A limit stands for a request that is not given."""
    limits, requests = container.resources.limits, container.resources.requests
    return name in limits or (kind == "requests" and name in requests)
