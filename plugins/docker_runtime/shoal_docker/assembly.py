"""Assembly: everything that must be there before a sandbox's containers can be made, side by side where it can be."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from shoal.config.settings import Settings
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.plugin.interfaces import AGENT_TOKEN_LABEL, Agent, Progress
from shoal_docker import environment, labels, windows
from shoal_docker.bodies import RUNTIME_DIR, Parts, SidecarParts, wanted_ports
from shoal_docker.config import DockerSettings, SecureRuntimeSettings
from shoal_docker.engine import Engine
from shoal_docker.environment import Start
from shoal_docker.execd import Execd, Installed, ProvidedExecd
from shoal_docker.execd.files import holds
from shoal_docker.images import EngineImage, Images
from shoal_docker.limits import resources
from shoal_docker.security import Security
from shoal_docker.volumes import Prepared, Volumes
from shoal_docker.volumes.claims import SERVER, VOLUME_FOR

T = TypeVar("T")
Ensure: TypeAlias = Callable[..., Awaitable[EngineImage]]

log = structlog.get_logger("shoal.docker")

SHELL: Final = "/bin/sh"
"""What a bootstrap is run by."""


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
        self,
        engine: Engine,
        settings: Settings,
        docker: DockerSettings,
        secure: SecureRuntimeSettings,
        agent: Agent | None = None,
        execd_image: str | None = None,
    ) -> None:
        self._engine = engine
        self._docker = docker
        self._execd_init = settings.runtime.execd_run_as_init
        self._init = docker.init
        self._security = Security(docker, secure)
        self._images = Images(engine)
        self._agent = agent
        self._execd: Execd | ProvidedExecd | None = None
        if agent is not None:
            self._execd = ProvidedExecd(engine, agent, required=settings.runtime.execd_image is not None)
        elif execd_image is not None:
            self._execd = Execd(engine, self._images, execd_image, docker.image_pull_policy)
        self._shells: dict[str, bool] = {}
        self._volumes = Volumes(engine, settings.storage, docker.sandbox_binds, secure.runtime)
        self.release, self.sweep = self._volumes.release, self._volumes.sweep
        self.verify, self.without_pins = self._volumes.verify, self._volumes.without_pins

    async def start(self) -> None:
        """Compare with what the engine can do; it has been started. Raises ConfigError, EngineError, Unavailable."""
        for warning in self._security.verify(self._engine.info):
            log.warning(warning)
        await self._images.start()
        await self._volumes.start()
        if self._execd is not None:
            await self._execd.start()

    async def stop(self) -> None:
        """Let go of what is under way."""
        if self._execd is not None:
            await self._execd.stop()
        await self._images.stop()

    def check(self, plan: WorkloadPlan) -> None:
        """Refuse what cannot be realised, from the plan alone. Raises InvalidRequest."""
        environment.check(plan)
        if windows.is_guest(plan):
            windows.check(plan, exists=None if self._engine.remote else os.path.exists)
        else:
            resources(plan.resource_limits)
        for sidecar in plan.sidecars:
            resources(sidecar.resource_limits)
            self._images.check(sidecar.image)
        if plan.image is not None:
            self._images.check(plan.image)
        self._volumes.check(plan)

    async def assemble(self, plan: WorkloadPlan, progress: Progress) -> Assembly:
        """Everything, ready for the create calls. Raises EngineFailure, InvalidRequest and Unavailable."""
        guest = windows.is_guest(plan)
        ports = list(windows.PORTS) if guest else []
        image, *others = await _all(
            self._image(plan, progress, self._images.ensure),
            *(self._image_of(sidecar, progress) for sidecar in plan.sidecars),
        )
        execd = None if self._execd is None else await self._execd.given_to(image, guest=guest, progress=progress)
        own = await self._volumes.prepare(plan.id, plan.volumes)
        beside = [await self._beside(plan, each, found) for each, found in zip(plan.sidecars, others, strict=True)]
        runtime_dir = await self._runtime_dir(plan)
        managed = [name for _, prepared in beside for name in prepared.managed]
        variables = self._variables(plan, ports, execd)
        sandbox = Parts(
            image=image.reference,
            carried=image.labels,
            platform=None if guest else platform_of(plan),
            image_id=image.id,
            invocation=environment.invocation(plan.command, self._start(image, execd, guest=guest)),
            env=environment.listed(variables),
            binds=self._docker.sandbox_binds,
            mounts=[*own.mounts, *runtime_dir, *(execd.mounts if execd is not None else ())],
            host={**self._confinement(plan), **self._reaper(variables, guest=guest)},
            labels={
                **own.labels(*managed, *(mount["Source"] for mount in runtime_dir)),
                **(execd.labels if execd is not None else {}),
            },
            placed=own.placed,
        )
        sidecars = {each.name: parts for each, (parts, _) in zip(plan.sidecars, beside, strict=True)}
        return Assembly(sandbox=sandbox, sidecars=sidecars, ports=ports)

    async def image_again(self, plan: WorkloadPlan, assembly: Assembly, progress: Progress) -> Parts:
        """The sandbox's parts with its image fetched anew: the engine did not have it after all."""
        image = await self._image(plan, progress, self._images.ensure_again)
        return replace(assembly.sandbox, image=image.reference, image_id=image.id, carried=image.labels)

    def without_init(self) -> None:
        """The engine has no init of its own: sandboxes go without from now on."""
        self._init = False

    def forget_execd(self) -> None:
        """The files of execd were not where they had been put: the next `assemble` looks again."""
        if self._execd is not None:
            self._execd.forget()

    def agent_at(self, plan: WorkloadPlan, assembly: Assembly, port: int) -> Assembly | None:
        """The same with the agent listening on another port; None if it has no agent that can."""
        moved = None if self._agent is None or windows.is_guest(plan) else self._agent.listening(port)
        if moved is None or not assembly.sandbox.labels.get(labels.EXECD_VOLUME):
            return None
        kept = [each for each in assembly.sandbox.env if each.partition("=")[0] not in moved]
        return replace(assembly, sandbox=replace(assembly.sandbox, env=[*kept, *environment.listed(moved)]))

    def _start(self, image: EngineImage, execd: Installed | None, *, guest: bool) -> Start:
        if guest:
            return Start.OWN
        if execd is None:
            return Start.PLAIN
        return Start.BOOTSTRAP if self._shells.get(image.id, True) else Start.AGENT

    async def check_shell(self, parts: Parts, container: str) -> bool:
        """Whether a container that is not started has what its start takes: a shell, for the agent's bootstrap.

        Found out once for each image, and only where the agent could do without. Raises EngineError, Unavailable.
        """
        if self._agent is None or parts.invocation.get("Entrypoint") != [environment.BOOTSTRAP]:
            return True
        if parts.image_id not in self._shells:
            self._shells[parts.image_id] = await self._engine.run(lambda client: holds(client, container, SHELL))
        return self._shells[parts.image_id]

    async def _image(self, plan: WorkloadPlan, progress: Progress, ensure: Ensure) -> EngineImage:
        if plan.snapshot_image is not None:
            return await self._images.local(plan.snapshot_image)
        policy = self._docker.image_pull_policy
        platform = None if windows.is_guest(plan) else platform_of(plan)
        return await ensure(plan.image or "", plan.image_auth, platform, policy, progress)

    async def _image_of(self, sidecar: Sidecar, progress: Progress) -> EngineImage:
        policy = self._docker.image_pull_policy
        return await self._images.ensure(sidecar.image, sidecar.image_auth, None, policy, progress)

    async def _runtime_dir(self, plan: WorkloadPlan) -> list[dict[str, Any]]:
        """The volume that the sandbox shares with those sidecars that want to; none if none does."""
        if not any(sidecar.shares_runtime_dir for sidecar in plan.sidecars):
            return []
        name = labels.runtime_volume(plan.id)
        mark = {labels.MANAGED_VOLUMES: SERVER, VOLUME_FOR: plan.id}
        await self._engine.call("create_volume", name, labels=mark)
        return [_runtime_mount(name)]

    async def _beside(self, plan: WorkloadPlan, sidecar: Sidecar, image: EngineImage) -> tuple[SidecarParts, Prepared]:
        prepared = await self._volumes.prepare(plan.id, sidecar.volumes, trusted=sidecar.trusted)
        shared = [_runtime_mount(labels.runtime_volume(plan.id))] if sidecar.shares_runtime_dir else []
        parts = SidecarParts(
            image=image.reference,
            carried=image.labels,
            mounts=[*prepared.mounts, *shared],
            host={**self._security.of_sidecar(sidecar), **resources(sidecar.resource_limits)},
            placed=prepared.placed,
        )
        return parts, prepared

    def _variables(self, plan: WorkloadPlan, ports: list[str], execd: Installed | None) -> dict[str, str]:
        found = environment.variables(plan, self._docker.sandbox_env, init=self._execd_init)
        token = plan.labels.get(AGENT_TOKEN_LABEL)
        if token and execd is not None and self._agent is not None:
            found |= self._agent.environment(token)
        if windows.is_guest(plan):
            return windows.variables(found, plan.resource_limits, wanted_ports(plan, ports))
        return found

    def _reaper(self, variables: Mapping[str, str], *, guest: bool) -> dict[str, Any]:
        """An init as process 1, unless execd is that, or the image boots a machine of its own."""
        own = guest or environment.is_init(variables)
        return {"Init": True} if self._init and not own else {}

    def _confinement(self, plan: WorkloadPlan) -> dict[str, Any]:
        guest = windows.is_guest(plan)
        found = self._security.of_sandbox(plan, guest=guest)
        return {**found, "Devices": windows.devices()} if guest else {**found, **resources(plan.resource_limits)}


def _runtime_mount(volume: str) -> dict[str, Any]:
    return {"Type": "volume", "Source": volume, "Target": RUNTIME_DIR, "ReadOnly": False}


def platform_of(plan: WorkloadPlan) -> str | None:
    """``os/arch``, where the request names a platform."""
    return None if plan.platform is None else f"{plan.platform.os}/{plan.platform.arch}"


async def _all(*work: Awaitable[T]) -> list[T]:
    """The results of all, side by side. The first failure is raised once every one of them has ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
