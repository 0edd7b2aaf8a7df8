"""The secret that the images of one pod are pulled with (docs/wire/kubernetes.md section 5)."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from shoal.models.plan import WorkloadPlan
from shoal.models.requests import ImageAuth

_DOCKER_HUB: Final = "https://index.docker.io/v1/"


def pull_secret_name(sandbox_id: str) -> str:
    """The secret that holds the registry credentials of one sandbox."""
    return f"opensandbox-image-auth-{sandbox_id}"


def pull_secret(plan: WorkloadPlan) -> dict[str, Any] | None:
    """The secret's data for the images that need credentials; None if none does."""
    wanted = [(plan.image, plan.image_auth), *((sidecar.image, sidecar.image_auth) for sidecar in plan.sidecars)]
    auths = {_registry(image): _login(auth) for image, auth in wanted if image is not None and auth is not None}
    if not auths:
        return None
    content = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    return {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": content}}


def _login(auth: ImageAuth) -> dict[str, str]:
    password = auth.password.reveal()
    basic = base64.b64encode(f"{auth.username}:{password}".encode()).decode()
    return {"username": auth.username, "password": password, "auth": basic}


def _registry(image: str) -> str:
    """The registry of an image's name: its first part if that looks like a host."""
    first, slash, _ = image.partition("/")
    return first if slash and (any(mark in first for mark in ".:") or first == "localhost") else _DOCKER_HUB
