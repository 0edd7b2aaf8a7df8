"""Assembly: everything that must be there before a sandbox's containers can be made, side by side where it can be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import structlog
from msgspec import Struct

from shoal.config.settings import Settings
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.plugin.interfaces import Progress
from shoal_docker import environment, windows
from shoal_docker.bodies import Parts, wanted_ports
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.engine import Engine
from shoal_docker.limits import resources
from shoal_docker.security import Security
from shoal_docker.sidecars import SidecarParts

log = structlog.get_logger("shoal.docker")


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
    """Prepares plans. Raises ConfigError for settings that cannot be."""

    def __init__(
        self, engine: Engine, settings: Settings, docker: DockerSettings, secure: SecureRuntimeSettings
    ) -> None:
        self._engine = engine
        self._docker = docker
        self._execd_init = settings.runtime.execd_run_as_init
        self._security = Security(docker, secure)

    async def start(self) -> None:
        """Compare with what the engine can do; it has been started. Raises ConfigError."""
        for warning in self._security.verify(self._engine.info):
            log.warning(warning)

    async def stop(self) -> None:
        """Let go of what is under way."""

    def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be realised, from the plan alone. Raises InvalidRequest."""
        environment.check(plan)
        if windows.is_guest(plan):
            windows.check(plan, exists=None if self._engine.remote else os.path.exists)
        else:
            resources(plan.resource_limits)
        for sidecar in plan.sidecars:
            resources(sidecar.resource_limits)

    async def assemble(self, plan: WorkloadPlan, progress: Progress) -> Assembly:
        """Everything, ready for the create calls. Raises EngineFailure, InvalidRequest and Unavailable."""
        guest = windows.is_guest(plan)
        ports = list(windows.PORTS) if guest else []
        sandbox = Parts(
            image=plan.snapshot_image or plan.image or "",
            invocation=environment.invocation(plan.command, execd=False, guest=guest),
            env=environment.listed(self._variables(plan, ports)),
            host=self._confinement(plan),
        )
        return Assembly(
            sandbox=sandbox, sidecars={each.name: self._beside(each) for each in plan.sidecars}, ports=ports
        )

    async def image_again(self, plan: WorkloadPlan, assembly: Assembly) -> Parts:
        return assembly.sandbox

    async def release(self, sandbox_id: str, labels: Mapping[str, str]) -> None: ...

    def _variables(self, plan: WorkloadPlan, ports: list[str]) -> dict[str, str]:
        found = environment.variables(plan, self._docker.sandbox_env, init=self._execd_init)
        if windows.is_guest(plan):
            return windows.variables(found, plan.resource_limits, wanted_ports(plan, ports))
        return found

    def _confinement(self, plan: WorkloadPlan) -> dict[str, Any]:
        guest = windows.is_guest(plan)
        found = self._security.of_sandbox(plan, guest=guest)
        return {**found, "Devices": windows.devices()} if guest else {**found, **resources(plan.resource_limits)}

    def _beside(self, sidecar: Sidecar) -> SidecarParts:
        return SidecarParts(host={**self._security.of_sidecar(sidecar), **resources(sidecar.resource_limits)})
