"""Assembly: everything that must be there before a sandbox's containers can be made, side by side where it can be."""

from __future__ import annotations

import os
from typing import Any

import structlog
from msgspec import Struct

from shoal.config.settings import Settings
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.plugin.interfaces import Progress
from shoal_docker import environment, labels, windows
from shoal_docker.bodies import RUNTIME_DIR, Parts, SidecarParts, wanted_ports
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.engine import Engine
from shoal_docker.limits import resources
from shoal_docker.security import Security
from shoal_docker.volumes import Prepared, Volumes
from shoal_docker.volumes.claims import SERVER, VOLUME_FOR

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
        self._volumes = Volumes(engine, settings.storage, docker.sandbox_binds)
        self.release = self._volumes.release

    async def start(self) -> None:
        """Compare with what the engine can do; it has been started. Raises ConfigError, EngineError, Unavailable."""
        for warning in self._security.verify(self._engine.info):
            log.warning(warning)
        await self._volumes.start()

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
        self._volumes.check(plan)

    async def assemble(self, plan: WorkloadPlan, progress: Progress) -> Assembly:
        """Everything, ready for the create calls. Raises EngineFailure, InvalidRequest and Unavailable."""
        guest = windows.is_guest(plan)
        ports = list(windows.PORTS) if guest else []
        own = await self._volumes.prepare(plan.id, plan.volumes)
        beside = {each.name: await self._beside(plan, each) for each in plan.sidecars}
        managed = [name for _, prepared in beside.values() for name in prepared.managed]
        runtime_dir = await self._runtime_dir(plan)
        sandbox = Parts(
            image=plan.snapshot_image or plan.image or "",
            invocation=environment.invocation(plan.command, execd=False, guest=guest),
            env=environment.listed(self._variables(plan, ports)),
            binds=self._docker.sandbox_binds,
            mounts=[*own.mounts, *runtime_dir],
            host=self._confinement(plan),
            labels=own.labels(*managed, *(mount["Source"] for mount in runtime_dir)),
        )
        sidecars = {name: parts for name, (parts, _) in beside.items()}
        return Assembly(sandbox=sandbox, sidecars=sidecars, ports=ports)

    async def image_again(self, plan: WorkloadPlan, assembly: Assembly) -> Parts:
        return assembly.sandbox

    async def _runtime_dir(self, plan: WorkloadPlan) -> list[dict[str, Any]]:
        """The volume that the sandbox shares with those sidecars that want to; none if none does."""
        if not any(sidecar.shares_runtime_dir for sidecar in plan.sidecars):
            return []
        name = labels.runtime_volume(plan.id)
        mark = {labels.MANAGED_VOLUMES: SERVER, VOLUME_FOR: plan.id}
        await self._engine.call("create_volume", name, labels=mark)
        return [_runtime_mount(name)]

    async def _beside(self, plan: WorkloadPlan, sidecar: Sidecar) -> tuple[SidecarParts, Prepared]:
        prepared = await self._volumes.prepare(plan.id, sidecar.volumes, trusted=sidecar.trusted)
        shared = [_runtime_mount(labels.runtime_volume(plan.id))] if sidecar.shares_runtime_dir else []
        parts = SidecarParts(
            image=sidecar.image,
            mounts=[*prepared.mounts, *shared],
            host={**self._security.of_sidecar(sidecar), **resources(sidecar.resource_limits)},
        )
        return parts, prepared

    def _variables(self, plan: WorkloadPlan, ports: list[str]) -> dict[str, str]:
        found = environment.variables(plan, self._docker.sandbox_env, init=self._execd_init)
        if windows.is_guest(plan):
            return windows.variables(found, plan.resource_limits, wanted_ports(plan, ports))
        return found

    def _confinement(self, plan: WorkloadPlan) -> dict[str, Any]:
        guest = windows.is_guest(plan)
        found = self._security.of_sandbox(plan, guest=guest)
        return {**found, "Devices": windows.devices()} if guest else {**found, **resources(plan.resource_limits)}


def _runtime_mount(volume: str) -> dict[str, Any]:
    return {"Type": "volume", "Source": volume, "Target": RUNTIME_DIR, "ReadOnly": False}
