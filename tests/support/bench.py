"""A test's share of a container engine: what it makes there, and what a runtime on the engine makes, is removed."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import docker
import docker.errors
from msgspec.structs import replace
from tests.docker_runtime.engines import IMAGE

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload
from shoal_docker.runtime import DockerRuntime

Make = Callable[..., Any]
"""Makes a started runtime: the fixture ``make`` of tests/docker_runtime."""
LONG = ["sleep", "600"]
MADE: set[str] = set()
"""Ids and names of everything that this run's benches were told of."""


class Bench:
    """One test's share of the engine: everything it makes is told to it, and removed at the end."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client: Any = client  # its stubs are stricter than it is
        self.ids: set[str] = set()
        self.images: list[str] = []
        self.volumes: list[str] = []
        self.networks: list[str] = []

    def new_id(self) -> str:
        """A sandbox id whose containers and volumes are removed in the end."""
        made = str(uuid.uuid4())
        self.ids.add(made)
        return made

    def plan(self, **changes: Any) -> WorkloadPlan:
        """A plan under an id of its own that runs for long."""
        plan = WorkloadPlan(
            id=self.new_id(), runtime="docker", created_at=datetime.now(UTC), command=list(LONG), image=IMAGE
        )
        return replace(plan, **changes)

    def container(self, sandbox_id: str, sidecar: str = "") -> Any:
        """The sandbox's own container, or a sidecar's. Raises docker.errors.NotFound."""
        middle = f"{sidecar}-" if sidecar else ""
        return self.client.containers.get(f"sandbox-{middle}{sandbox_id}")

    def run(self, sandbox_id: str, labels: dict[str, str], *, image: str = IMAGE, **more: Any) -> Any:
        """A container as another server would have made it."""
        self.ids.add(sandbox_id)
        more = {"name": f"sandbox-{sandbox_id}", "command": LONG, **more}
        return self.client.containers.run(
            image, detach=True, labels={"opensandbox.io/id": sandbox_id, **labels}, **more
        )

    def image(self, dockerfile: str, base: str = IMAGE) -> str:
        """An image built from the lines after ``FROM``."""
        tag = f"shoal-test/made-{uuid.uuid4().hex[:12]}:latest"
        self.client.images.build(fileobj=io.BytesIO(f"FROM {base}\n{dockerfile}\n".encode()), tag=tag, rm=True)
        self.images.append(tag)
        return tag

    def network(self, name: str) -> str:
        """A user-defined network."""
        self.client.networks.create(name)
        self.networks.append(name)
        return name

    def left(self, sandbox_id: str) -> list[str]:
        """Names of containers and volumes that are still there for a sandbox."""
        containers = self.client.api.containers(all=True, filters={"name": sandbox_id})
        volumes = self.client.api.volumes(filters={"name": sandbox_id})["Volumes"] or []
        return [c["Names"][0] for c in containers] + [v["Name"] for v in volumes]

    def clear(self) -> None:
        """Remove whatever is left."""
        MADE.update(self.ids, self.images, self.volumes, self.networks)
        api = self.client.api
        for sandbox_id in self.ids:
            for found in api.containers(all=True, filters={"name": sandbox_id}):
                _quietly(api.remove_container, found["Id"], force=True, v=True)
            for volume in api.volumes(filters={"name": sandbox_id})["Volumes"] or []:
                _quietly(api.remove_volume, volume["Name"])
        for tag in self.images:
            _quietly(api.remove_image, tag, force=True)
        for name in self.volumes:
            _quietly(api.remove_volume, name)
        for name in self.networks:
            _quietly(api.remove_network, name)


def _quietly(work: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    try:
        work(*args, **kwargs)
    except docker.errors.APIError as error:
        assert error.status_code in (404, 409)


async def create(runtime: DockerRuntime, plan: WorkloadPlan) -> Workload:
    """As the engine does it: checked first."""
    await runtime.check(plan)
    return await runtime.create(plan, lambda reason, message: None)


async def listed(runtime: DockerRuntime, sandbox_id: str) -> Workload | None:
    """The workload as the list shows it."""
    found = [workload for workload in await runtime.list() if workload.id == sandbox_id]
    assert len(found) <= 1
    return found[0] if found else None
