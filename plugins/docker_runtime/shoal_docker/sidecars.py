"""Sidecars: made, started and waited for (docs/wire/docker.md section 8)."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from shoal.errors import EngineFailure
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal_docker import labels
from shoal_docker.bodies import Attachment, Body, SidecarParts, sidecar_body
from shoal_docker.engine import Engine, EngineError
from shoal_docker.hosts import LOOPBACK
from shoal_docker.observe import HostAddresses, address_of
from shoal_docker.readiness import await_ready

log = structlog.get_logger("shoal.docker")

START_FAILED = "DOCKER::SANDBOX_START_FAILED"


class Sidecars:
    """Starts sidecars of one plan, one after the other, in its order."""

    def __init__(self, engine: Engine, surroundings: HostAddresses) -> None:
        self._engine = engine
        self._surroundings = surroundings

    async def start(
        self,
        plan: WorkloadPlan,
        sidecar: Sidecar,
        parts: SidecarParts,
        network: Attachment,
        published: Mapping[str, int],
    ) -> str:
        """The container's id, once it is ready.

        Raises EngineError as the engine says it (a port is taken, the name is), EngineFailure if it ends or does not
        become ready.
        """
        name = labels.sidecar_name(plan.id, sidecar.name)
        body = sidecar_body(plan, sidecar, parts, network)
        try:
            container = await self._run(body, name)
        except EngineError as error:
            if not sidecar.sysctls or "sysctl" not in error.explanation.lower():
                raise
            log.warning("the engine refuses sysctls; the sidecar runs without", sidecar=sidecar.name)
            del body["HostConfig"]["Sysctls"]
            container = await self._run(body, name)
        if sidecar.ready is not None:
            await self._await_ready(sidecar, container, network, published)
        return container

    async def _run(self, body: Body, name: str) -> str:
        """Create and start; what the engine creates and then refuses to start is gone again."""
        made = await self._engine.call("create_container_from_config", body, name)
        try:
            await self._engine.call("start", made["Id"])
        except EngineError:
            await self._engine.call("remove_container", made["Id"], force=True, v=True)
            raise
        return str(made["Id"])

    async def _await_ready(
        self, sidecar: Sidecar, container: str, network: Attachment, published: Mapping[str, int]
    ) -> None:
        probe = sidecar.ready
        assert probe is not None  # noqa: S101 - the caller looked

        async def alive() -> None:
            state = (await self._engine.call("inspect_container", container)).get("State") or {}
            if not state.get("Running"):
                how = f"ended with exit code {state.get('ExitCode')}"
                raise EngineFailure(START_FAILED, f"The sidecar {sidecar.name} {how} before it was ready.")

        try:
            await await_ready(probe, await self._address(probe.port, container, network, published), alive)
        except TimeoutError:
            await alive()
            message = f"The sidecar {sidecar.name} was not ready within {probe.timeout_seconds:g} seconds."
            raise EngineFailure(START_FAILED, message) from None

    async def _address(
        self, port: int, container: str, network: Attachment, published: Mapping[str, int]
    ) -> tuple[str, int]:
        """Where this server finds a port of the sandbox's network."""
        if f"{port}/tcp" in published:
            return self._surroundings.mapped.proxy, published[f"{port}/tcp"]
        if network.mode == "host":
            return (LOOPBACK if self._surroundings.direct else self._surroundings.hosts.proxy), port
        kind, _, owner = network.mode.partition(":")
        found = await self._engine.call("containers", filters={"id": [owner if kind == "container" else container]})
        address = address_of(found[0]) if found and self._surroundings.direct else None
        if address is None:
            raise EngineFailure(START_FAILED, f"Port {port} of a sidecar cannot be reached: it is not published.")
        return address, port
