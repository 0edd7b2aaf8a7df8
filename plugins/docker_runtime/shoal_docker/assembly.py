"""Assembly: everything that must be there before a sandbox's containers can be made, side by side where it can be."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from shoal.config.settings import Settings
from shoal.models.plan import WorkloadPlan
from shoal.plugin.interfaces import Progress
from shoal_docker.bodies import Parts
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.engine import Engine
from shoal_docker.limits import resources
from shoal_docker.sidecars import SidecarParts


class Assembly(Struct, kw_only=True):
    """What was prepared for one plan.

    Attributes:
        sidecars: by name.
        ports: published besides those that every sandbox publishes, as ``3389/udp``.
    """

    sandbox: Parts
    sidecars: dict[str, SidecarParts] = {}
    ports: list[str] = []


class Assembler:
    """Prepares plans."""

    def __init__(
        self, engine: Engine, settings: Settings, docker: DockerSettings, secure: SecureRuntimeSettings
    ) -> None:
        self._engine = engine
        self._docker = docker

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be realised, from the plan alone. Raises InvalidRequest."""
        resources(plan.resource_limits)
        for sidecar in plan.sidecars:
            resources(sidecar.resource_limits)

    async def assemble(self, plan: WorkloadPlan, progress: Progress) -> Assembly:
        return Assembly(
            sandbox=Parts(
                image=plan.snapshot_image or plan.image or "",
                entrypoint=[],
                command=plan.command,
                env=[f"{key}={value}" for key, value in plan.env.items() if value is not None],
                host=resources(plan.resource_limits),
            ),
            sidecars={sidecar.name: SidecarParts() for sidecar in plan.sidecars},
        )

    async def image_again(self, plan: WorkloadPlan, assembly: Assembly) -> Parts:
        return assembly.sandbox

    async def release(self, sandbox_id: str, labels: Mapping[str, str]) -> None: ...
