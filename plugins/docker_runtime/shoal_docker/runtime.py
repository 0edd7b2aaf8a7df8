"""The runtime ``docker``: the kernel's interface on one side, the engine on the other (docs/wire/docker.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Final

import structlog

from shoal.config.settings import Settings
from shoal.errors import ConfigError, InvalidRequest, Unavailable
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Workload, WorkloadGone
from shoal.plugin.interfaces import Agent, Capabilities, LogQuery, Progress, Runtime
from shoal_docker.assembly import Assembler
from shoal_docker.census import Census
from shoal_docker.config import DockerSettings, SecureRuntimeSettings, normal_mode
from shoal_docker.diagnostics import ContainerDiagnostics
from shoal_docker.engine import Engine, EngineError
from shoal_docker.freezer import Freezer
from shoal_docker.hosts import PublishedHosts, find_hosts
from shoal_docker.maker import ContainerMaker
from shoal_docker.observe import HostAddresses
from shoal_docker.remover import ContainerRemover
from shoal_docker.sidecars import Sidecars
from shoal_docker.snapshots import ImageSnapshots
from shoal_docker.watcher import Watcher

log = structlog.get_logger("shoal.docker")

SPARE_THREADS: Final = 8
"""For lists, events and diagnostics while every other is busy with creates and removals."""
_BUILT_IN: Final = frozenset({"host", "bridge", "none", "default"})


class DockerRuntime(Runtime):
    """Sandboxes as containers.

    Args:
        known: whether this server has a record of a sandbox.
        agent: what sandboxes get, if they get a registered one.
        execd_image: the image of what they get otherwise; None for nothing.
    """

    name: ClassVar[str] = "docker"
    scope: ClassVar[str] = "DOCKER"
    capabilities = Capabilities(routed=False, certificates="path")

    def __init__(
        self,
        settings: Settings,
        docker: DockerSettings,
        secure: SecureRuntimeSettings,
        *,
        known: Callable[[str], bool] = lambda sandbox_id: False,
        agent: Agent | None = None,
        execd_image: str | None = None,
    ) -> None:
        self.concurrency = docker.concurrency
        self._settings, self._docker, self._secure = settings, docker, secure
        self._known = known
        self.agent, self.agent_starts = agent, agent is not None or execd_image is not None
        self.engine = Engine(docker.host, timeout=docker.timeout, threads=docker.concurrency + SPARE_THREADS)
        self._networks: set[str] = set()
        surroundings = self._surroundings = self._around()
        self._census = Census(self.engine, surroundings, known)
        self._assembler = Assembler(self.engine, settings, docker, secure, agent, execd_image)
        self.remover = ContainerRemover(self.engine, self._census, self._assembler.release, known)
        self._watcher = Watcher(self.engine, self._census, self._networks, self.remover.retire)
        self._freezer = Freezer(self.engine, self._census)
        self._snapshots = ImageSnapshots(self.engine, self._census)
        self._diagnostics = ContainerDiagnostics(self.engine, self._census)
        self._maker = ContainerMaker(
            self.engine, docker, self._census, self.remover, self._assembler, Sidecars(self.engine, surroundings)
        )

    async def start(self) -> None:
        """Connect, and learn what the engine can do. Raises ConfigError where the server must not start."""
        try:
            await self.engine.start()
            await self._assembler.start()
            self._networks.update(network["Name"] for network in await self.engine.call("networks"))
        except Unavailable as error:
            raise ConfigError(f"DOCKER::INITIALIZATION_ERROR: {error.message}") from None
        except EngineError as error:
            raise ConfigError(f"DOCKER::INITIALIZATION_ERROR: the container engine says: {error.explanation}") from None
        self._surroundings.direct = not (self.engine.remote or self.engine.rootless)
        self.capabilities = self._able()
        self._tell()

    async def stop(self) -> None:
        """Let go of the engine; the sandboxes go on."""
        await self.remover.stop()
        await self._assembler.stop()
        await self.engine.stop()

    async def ping(self) -> None:
        try:
            await self.engine.call("ping")
        except EngineError as error:
            raise Unavailable("DOCKER::ENGINE_UNAVAILABLE", f"The container engine says: {error.explanation}") from None

    async def check(self, plan: WorkloadPlan) -> None:
        away = self.engine.away
        if away is not None:
            raise Unavailable(away.code, away.message)
        mode = normal_mode(plan.network.mode) if plan.network.mode else self._docker.mode
        if mode not in _BUILT_IN and not mode.startswith("container:") and mode not in self._networks:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"The engine has no network named {mode}.")
        if any(sidecar.trusted and sidecar.first for sidecar in plan.sidecars) and mode not in ("bridge", "default"):
            message = f"A sidecar that owns the network needs a bridge of its own; the network mode is {mode}."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        self._assembler.check(plan)

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        self.remover.expect(plan.id)
        with _among(self._watcher.busy, plan.id):
            return await self._maker.make(plan, progress)

    async def delete(self, sandbox_id: str) -> None:
        with _among(self._watcher.leaving, sandbox_id):
            await self.remover.remove(sandbox_id)

    async def pause(self, sandbox_id: str) -> Workload:
        doing = "The sandbox could not be paused"
        with _among(self._watcher.busy, sandbox_id), _reported("SANDBOX_PAUSE_FAILED", doing):
            return await self._freezer.pause(sandbox_id)

    async def resume(self, sandbox_id: str) -> Workload:
        doing = "The sandbox could not be resumed"
        with _among(self._watcher.busy, sandbox_id), _reported("SANDBOX_RESUME_FAILED", doing):
            return await self._freezer.resume(sandbox_id)

    async def list(self) -> list[Workload]:
        with _reported("SANDBOX_QUERY_FAILED", "The engine could not list its containers"):
            families = await self._census.all()
            workloads = await self._census.workloads(families)
        self.remover.retire(families)
        await self.remover.sweep(families)
        there = {family.id for family in families}
        await self._assembler.sweep(lambda sandbox_id: sandbox_id in there or self._known(sandbox_id))
        return [workload for workload in workloads if not self.remover.is_gone(workload.id)]

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self._watcher.changes()

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        return await self._diagnostics.logs(sandbox_id, query)

    async def events(self, sandbox_id: str, limit: int) -> str:
        return await self._diagnostics.events(sandbox_id, limit)

    async def inspect(self, sandbox_id: str) -> str:
        return await self._diagnostics.inspect(sandbox_id)

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        with _among(self._watcher.busy, sandbox_id):
            return await self._snapshots.take(sandbox_id, snapshot_id)

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        await self._snapshots.remove(snapshot_id, image)

    def _around(self) -> HostAddresses:
        server, docker = self._settings.server, self._docker

        def found(publish_host: str) -> PublishedHosts:
            return find_hosts(
                bind=server.host,
                eip=server.eip,
                host_ip=docker.host_ip,
                engine=self.engine.address,
                publish_host=publish_host,
            )

        return HostAddresses(hosts=found(""), mapped=found(docker.publish_host), direct=False)

    def _able(self) -> Capabilities:
        platforms = {f"{self.engine.os}/{self.engine.arch}"} if self.engine.os and self.engine.arch else set()
        if self.engine.takes_platform:
            platforms |= {"linux/amd64", "linux/arm64", "windows/amd64", "windows/arm64"}
        return Capabilities(
            pause=self._able_to_pause(),
            snapshots=True,
            sidecars=True,
            network_policy=self._docker.mode in ("bridge", "default") and self._secure.type != "gvisor",
            image_auth=True,
            routed=False,
            certificates="path",
            volumes=frozenset({"host", "pvc", "ossfs"}),
            platforms=frozenset(platforms),
        )

    def _able_to_pause(self) -> bool:
        """Freezing needs the freezer of the control groups; Podman without root on cgroups v1 has none."""
        return not (self.engine.rootless and str(self.engine.info.get("CgroupVersion") or "2") == "1")

    def _tell(self) -> None:
        """What this engine is, and what it cannot do."""
        engine = self.engine
        log.info(
            "container engine",
            kind="podman" if engine.podman else "docker",
            version=engine.version.get("Version"),
            platform=f"{engine.os}/{engine.arch}",
            rootless=engine.rootless,
        )
        lacking = [
            what
            for what, there in (
                ("pause: no freezer without root on cgroups v1", self.capabilities.pause),
                ("platform selection: the engine's API is older than 1.41", engine.takes_platform),
                ("addresses of containers: sandboxes are reached at published ports", self._surroundings.direct),
                ("limits: no control groups", str(engine.info.get("CgroupDriver") or "").lower() != "none"),
            )
            if not there
        ]
        if lacking:
            log.warning("the container engine lacks", features=lacking)
        if self._docker.mode not in _BUILT_IN and self._docker.mode not in self._networks:
            log.warning("docker.network_mode names a network that does not exist", network=self._docker.mode)


@contextmanager
def _among(group: set[str], sandbox_id: str) -> Iterator[None]:
    group.add(sandbox_id)
    try:
        yield
    finally:
        group.discard(sandbox_id)


@contextmanager
def _reported(reason: str, doing: str) -> Iterator[None]:
    """The engine's error as one of the API."""
    try:
        yield
    except EngineError as error:
        raise error.failure(codes.scoped("DOCKER", reason), doing) from None
