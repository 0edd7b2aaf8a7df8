"""Create: from a plan to a running sandbox.

The engine is called once to make the container and once to start it; one more call reads how it came out. A name that
is taken is a sign of an earlier try (a crash, a lost answer): what already runs is kept, anything else is replaced. A
host port that is taken costs a new container, since the port stands in its labels.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

import structlog

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models import codes
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.models.workload import Workload
from shoal.plugin.interfaces import Progress
from shoal_docker import labels
from shoal_docker.assembly import Assembler, Assembly
from shoal_docker.bodies import Attachment, sandbox_body, wanted_ports
from shoal_docker.census import Census
from shoal_docker.config import DockerSettings, normal_mode
from shoal_docker.engine import Engine, EngineError, EngineTimeout
from shoal_docker.execd import VOLUME_PREFIX
from shoal_docker.observe import EXECD_PORT, Family, has_ended, labels_of, state_of
from shoal_docker.ports import ATTEMPTS, HostPorts, is_conflict
from shoal_docker.remover import ContainerRemover
from shoal_docker.sidecars import START_FAILED, Sidecars
from shoal_docker.volumes import Swapped, Unseen
from shoal_docker.volumes.host import NOT_ALLOWED

log = structlog.get_logger("shoal.docker")

RETRY_SECONDS = 5.0
"""Wait before a create whose engine did not answer in time is tried again."""


class NoShell(Exception):
    """The image has no shell, which the sandbox's start wants."""


class Taken(Exception):
    """A container of that name exists."""


class PortTaken(Exception):
    """A host port that was chosen is in use."""


class FilesLost(Exception):
    """A file that is bound into the sandbox is not on the engine's machine any more."""


class InitMissing(Exception):
    """The engine has no init to give to a container."""


class ContainerMaker:
    """Makes sandboxes."""

    def __init__(
        self,
        engine: Engine,
        settings: DockerSettings,
        census: Census,
        remover: ContainerRemover,
        assembler: Assembler,
        sidecars: Sidecars,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._census = census
        self._remover = remover
        self._assembler = assembler
        self._sidecars = sidecars
        self._ports = HostPorts(settings, local=not engine.remote)

    async def make(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        """The running sandbox. Raises EngineFailure with the API's codes, InvalidRequest and Unavailable."""
        try:
            return await self._make(plan, progress)
        except EngineTimeout as error:
            raise EngineFailure(START_FAILED, error.message, retry_after=RETRY_SECONDS) from None
        except EngineError as error:
            raise error.failure(START_FAILED, "The sandbox could not be started") from None

    async def _make(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        for attempt in range(1, ATTEMPTS + 1):
            assembly = await self._assembler.assemble(plan, progress)
            try:
                return await self._start(plan, assembly, progress)
            except Taken:
                log.info("an earlier try of this create left something", sandbox_id=plan.id)
                family = await self._census.one(plan.id)
                standing = await self._census.workload(family) if _stands(plan, family) else None
                if standing is not None:
                    return standing
                await self._remover.clear(family)
            except FilesLost as error:
                log.warning("execd's files are gone, they are brought again", error=str(error))
                self._assembler.forget_execd()
                await self._remover.clear(await self._census.one(plan.id))
                if attempt == ATTEMPTS:
                    raise EngineFailure(START_FAILED, f"The sandbox could not be started: {error}") from None
            except NoShell:
                log.info("the image has no shell: the agent starts the command", sandbox_id=plan.id, image=plan.image)
                await self._remover.clear(await self._census.one(plan.id))
            except InitMissing as error:
                log.warning("the engine has no init: orphans of a sandbox stay until it ends", error=str(error))
                self._assembler.without_init()
                await self._remover.clear(await self._census.one(plan.id))
            except Unseen:
                log.warning("the engine does not see this server's mounts: volumes are given to it by path")
                self._assembler.without_pins()
                await self._remover.clear(await self._census.one(plan.id))
            except Swapped:
                log.warning("a volume was changed while it was mounted", sandbox_id=plan.id)
                await self._remover.clear(await self._census.one(plan.id))
                raise InvalidRequest(NOT_ALLOWED, "volumes: a volume was changed while it was mounted.") from None
            except PortTaken as error:
                log.info("a host port was taken meanwhile", sandbox_id=plan.id, attempt=attempt)
                await self._remover.clear(await self._census.one(plan.id))
                if attempt == ATTEMPTS:
                    raise EngineFailure(START_FAILED, f"No free host port was found: {error}") from None
        raise EngineFailure(START_FAILED, "The name of the sandbox's container is taken by another container.")

    async def _start(self, plan: WorkloadPlan, assembly: Assembly, progress: Progress) -> Workload:
        """One try. Raises Taken and PortTaken besides."""
        mode = normal_mode(plan.network.mode) if plan.network.mode else self._settings.mode
        if mode != "host":
            return await self._start_in(mode, plan, assembly, progress)
        async with self._agent_port(plan, assembly) as (placed, moved):
            return await self._start_in(mode, plan, placed, progress, moved)

    @asynccontextmanager
    async def _agent_port(
        self, plan: WorkloadPlan, assembly: Assembly
    ) -> AsyncIterator[tuple[Assembly, dict[str, int]]]:
        """On the host's own network: the assembly, with another port for its agent where 44772 is somebody else's."""
        with self._ports.kept(EXECD_PORT) as free:
            if free and not await self._census.shares_host(EXECD_PORT):
                yield assembly, {}
                return
        with self._ports.drawn([f"{EXECD_PORT}/tcp"]) as drawn:
            [number] = drawn.values()
            moved = self._assembler.agent_at(plan, assembly, number)
            yield (assembly, {}) if moved is None else (moved, drawn)

    async def _start_in(
        self,
        mode: str,
        plan: WorkloadPlan,
        assembly: Assembly,
        progress: Progress,
        moved: Mapping[str, int] = MappingProxyType({}),
    ) -> Workload:
        """The same in a network; ``moved`` are ports that nobody publishes, and that are elsewhere all the same."""
        shared = mode == "host" or mode.startswith("container:")
        wanted = () if shared else wanted_ports(plan, assembly.ports)
        with self._ports.drawn(wanted) as published:
            owner = Attachment(mode=mode, published=published, host_ip=self._settings.publish_host)
            network = owner
            for sidecar in filter(lambda each: each.first, plan.sidecars):
                container = await self._sidecar(plan, sidecar, assembly, network, published)
                network = network if shared or network is not owner else _joined(container)
            container = await self._sandbox(plan, assembly, network, {**published, **moved}, progress)
            network = network if shared or network is not owner else _joined(container)
            for sidecar in filter(lambda each: not each.first, plan.sidecars):
                await self._sidecar(plan, sidecar, assembly, network, published)
        workload = await self._census.workload(await self._census.one(plan.id))
        if workload is None:
            raise EngineFailure(START_FAILED, "The sandbox's container vanished as soon as it had started.")
        return workload

    async def _sandbox(
        self,
        plan: WorkloadPlan,
        assembly: Assembly,
        network: Attachment,
        published: dict[str, int],
        progress: Progress,
    ) -> str:
        parts = assembly.sandbox
        body = sandbox_body(plan, parts, network, published)
        name = labels.sandbox_name(plan.id)
        try:
            try:
                made = await self._create(body, name, parts.platform)
            except EngineError as error:
                if error.status != 404:
                    raise
                parts = await self._assembler.image_again(plan, assembly, progress)
                made = await self._create(sandbox_body(plan, parts, network, published), name, parts.platform)
            if not await self._assembler.check_shell(parts, str(made["Id"])):
                raise NoShell
            await self._engine.call("start", made["Id"])
            await self._assembler.verify(made["Id"], parts.placed)
        except EngineError as error:
            raise _distinguished(error) from None
        return str(made["Id"])

    async def _create(self, body: dict[str, object], name: str, platform: str | None) -> dict[str, str]:
        try:
            made: dict[str, str] = await self._engine.call("create_container_from_config", body, name, platform)
        except EngineError as error:
            if platform is not None and "platform is not supported" in error.explanation:
                message = f"The engine is too old to be asked for a platform: {error.explanation}"
                raise InvalidRequest(codes.INVALID_PARAMETER, message) from None
            raise
        return made

    async def _sidecar(
        self,
        plan: WorkloadPlan,
        sidecar: Sidecar,
        assembly: Assembly,
        network: Attachment,
        published: dict[str, int],
    ) -> str:
        parts = assembly.sidecars[sidecar.name]
        try:
            container = await self._sidecars.start(plan, sidecar, parts, network, published)
            await self._assembler.verify(container, parts.placed)
            return container
        except EngineError as error:
            found = _distinguished(error)
            if found is not error:
                raise found from None
            raise error.failure(START_FAILED, f"The sidecar {sidecar.name} could not be started") from None


_NO_INIT: Final = ("docker-init", "container-init binary", "catatonit")
_ABSENT: Final = ("does not exist", "no such file")


def _joined(container: str) -> Attachment:
    return Attachment(mode=f"container:{container}")


def _distinguished(error: EngineError) -> Exception:
    """The error, or what it means; Podman answers 500 to a name that is taken."""
    if error.status in (409, 500) and "name" in error.explanation and "is already in use" in error.explanation:
        return Taken()
    if any(words in error.explanation for words in _NO_INIT):
        return InitMissing(error.explanation)
    if VOLUME_PREFIX in error.explanation and any(words in error.explanation for words in _ABSENT):
        return FilesLost(error.explanation)
    return PortTaken(error.explanation) if is_conflict(error.explanation) else error


def _stands(plan: WorkloadPlan, family: Family) -> bool:
    """Whether an earlier try came as far as this one would: it ran, and nothing of it is missing."""
    if family.main is None or state_of(family.main) == "created":
        return False
    there = {labels_of(each).get(labels.SIDECAR_NAME) for each in family.sidecars if not has_ended(each)}
    return there >= {sidecar.name for sidecar in plan.sidecars}
