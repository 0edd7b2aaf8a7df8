"""Removal: everything that was made for a sandbox, in an order that can be repeated.

The labels that say which volumes go with a sandbox go with its container. Until the last of them is gone they are kept
in memory, and whoever repeats a removal after a crash finds the volumes by their own labels.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import structlog

from shoal.errors import ShoalError
from shoal.models.codes import scoped
from shoal_docker import labels
from shoal_docker.adoption import forget_loose_files
from shoal_docker.census import Census
from shoal_docker.engine import Engine, EngineError
from shoal_docker.killer import Killer
from shoal_docker.observe import Family, Summary, has_ended, labels_of, state_of

log = structlog.get_logger("shoal.docker")

ABANDONED_SECONDS: Final = 600.0
"""Age at which what belongs to nobody is removed; a create of another server on this engine takes less."""
REMEMBERED: Final = 10_000
"""Removed sandboxes whose late containers are still recognised."""
RETIRE_SECONDS: Final = 2.0
"""How long a sandbox's command must have ended before its sidecars are stopped: somebody may be restarting it."""

Release = Callable[[str, Mapping[str, str]], Awaitable[None]]
"""Lets go of volumes: the sandbox's id, and the labels of its container (empty if there was none)."""


class ContainerRemover:
    """Removes sandboxes, and what was left of creates that nobody will finish.

    Args:
        known: whether this server has a record of a sandbox.
    """

    def __init__(self, engine: Engine, census: Census, release: Release, known: Callable[[str], bool]) -> None:
        self._engine = engine
        self._killer = Killer(engine)
        self._census = census
        self._release = release
        self._known = known
        self._owed: dict[str, dict[str, str]] = {}
        self._gone: dict[str, None] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}
        self.abandoned_seconds = ABANDONED_SECONDS

    async def remove(self, sandbox_id: str) -> None:
        """Remove the sandbox; none is success. Raises EngineFailure or Unavailable with the rest still to be done."""
        family = await self._census.one(sandbox_id)
        try:
            await self.clear(family)
        except EngineError as error:
            code = scoped("DOCKER", "SANDBOX_DELETE_FAILED")
            raise error.failure(code, "The sandbox could not be removed") from None
        self._gone[sandbox_id] = None
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def expect(self, sandbox_id: str) -> None:
        """It is being made."""
        self._gone.pop(sandbox_id, None)

    def is_gone(self, sandbox_id: str) -> bool:
        """Whether this server removed it; an engine that hung may still carry out a create that gave up on it."""
        return sandbox_id in self._gone and not self._known(sandbox_id)

    async def clear(self, family: Family) -> None:
        """The same for a family that was just read. Raises EngineError and ShoalErrors."""
        found = self._owed.get(family.id, {})
        if family.main is not None:
            found = labels_of(family.main)
            self._owed[family.id] = found
            await self._killer.kill(str(family.main["Id"]), runs=state_of(family.main) == "running")
        await asyncio.gather(*map(self._end, family.sidecars))
        if family.sidecars:
            await self.volume(labels.runtime_volume(family.id))
        await self._release(family.id, found)
        if not found.get(labels.OWN):
            await asyncio.to_thread(forget_loose_files, family.id)
        self._owed.pop(family.id, None)

    async def volume(self, name: str) -> None:
        """Remove a volume of ours; absent is success."""
        try:
            await self._engine.call("remove_volume", name, force=True)
        except EngineError as error:
            if error.status != 404:
                raise

    async def sweep(self, families: Iterable[Family]) -> None:
        """Remove sidecars without a sandbox, containers that nobody started, and what came late. Never raises."""
        oldest = time.time() - self.abandoned_seconds
        for family in families:
            if self._known(family.id) or not (self.is_gone(family.id) or _is_abandoned(family, oldest)):
                continue
            log.info("removing what a create left behind", sandbox_id=family.id)
            try:
                await self.clear(family)
            except (EngineError, ShoalError) as error:
                log.warning("leftovers could not be removed", sandbox_id=family.id, error=str(error))

    def retire(self, families: Iterable[Family]) -> None:
        """Stop the sidecars of sandboxes whose own command has ended; it goes on behind. Their logs stay to be read."""
        for family in families:
            main = family.main
            running = any(state_of(sidecar) == "running" for sidecar in family.sidecars)
            if main is None or not has_ended(main) or not running or family.id in self._retiring:
                continue
            if self._known(family.id):
                self._retiring[family.id] = asyncio.create_task(self._retire(family, main), name=f"retire {family.id}")

    async def stop(self) -> None:
        """Let go of what is under way; the next comparison takes it up."""
        tasks = list(self._retiring.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _retire(self, family: Family, main: Summary) -> None:
        try:
            await asyncio.sleep(RETIRE_SECONDS)
            inspected = await self._engine.call("inspect_container", main["Id"])
            if not (inspected.get("State") or {}).get("Running"):
                log.info("the sandbox has ended, its sidecars are stopped", sandbox_id=family.id)
                await asyncio.gather(*(self._halt(each) for each in family.sidecars if state_of(each) == "running"))
        except (EngineError, ShoalError) as error:
            log.debug("sidecars are left for the next comparison", sandbox_id=family.id, error=str(error))
        finally:
            self._retiring.pop(family.id, None)

    async def _halt(self, sidecar: Summary) -> bool:
        """Stop a sidecar within its own stop time; whether it has ended. Never raises but for a cancellation."""
        try:
            return await self._killer.stop(str(sidecar["Id"]))
        except ShoalError as error:
            log.debug("sidecar did not stop", container=sidecar["Id"][:12], error=str(error))
            return False

    async def _end(self, sidecar: Summary) -> None:
        """Give a sidecar its own stop time, then remove it."""
        runs = state_of(sidecar) == "running" and not await self._halt(sidecar)
        await self._killer.kill(str(sidecar["Id"]), runs=runs)


def _is_abandoned(family: Family, oldest: float) -> bool:
    """Whether nobody will ever use it: made long ago, and never a running sandbox."""
    if family.main is not None and not (labels_of(family.main).get(labels.OWN) and state_of(family.main) == "created"):
        return False
    return all(float(container.get("Created") or 0) < oldest for container in family.all)
