"""Pause and resume: the sandbox and all of its sidecars, or none of them (docs/wire/docker.md section 8).

The sandbox is frozen before what guards its network and thawed after it, so that it never runs unguarded. What is
already as wanted counts as done: after a crash the operation is repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shoal.errors import Conflict, EngineFailure, NotFound, ShoalError
from shoal.models.codes import scoped
from shoal.models.workload import Workload
from shoal_docker import labels
from shoal_docker.census import Census
from shoal_docker.engine import Engine, EngineError
from shoal_docker.observe import Family, Summary, labels_of, name_of, state_of

SCOPE = "DOCKER"


class Freezer:
    """Works on one sandbox at a time; the kernel never asks for two operations on one at once."""

    def __init__(self, engine: Engine, census: Census) -> None:
        self._engine = engine
        self._census = census

    async def pause(self, sandbox_id: str) -> Workload:
        """Freeze it. Raises NotFound, Conflict if it does not run, EngineFailure; then nothing has changed."""
        family, main = await self._family(sandbox_id)
        if state_of(main) not in ("running", "paused"):
            raise Conflict(scoped(SCOPE, "SANDBOX_NOT_RUNNING"), f"The sandbox's container is {state_of(main)}.")
        self._require_sidecars(family, "SANDBOX_PAUSE_FAILED", "paused")
        done: list[Summary] = []
        try:
            await self._each("pause", [main], "running", done)
            await self._each("pause", family.sidecars, "running", done)
        except BaseException as error:
            await self._undo("unpause", [*done[1:], *done[:1]])
            raise self._told(error, "SANDBOX_PAUSE_FAILED", "The sandbox could not be paused") from None
        return await self._as_now(family, "running", "paused")

    async def resume(self, sandbox_id: str) -> Workload:
        """Thaw it. Raises NotFound, Conflict if it is not paused, EngineFailure; then nothing has changed."""
        family, main = await self._family(sandbox_id)
        if state_of(main) not in ("running", "paused"):
            raise Conflict(scoped(SCOPE, "SANDBOX_NOT_PAUSED"), f"The sandbox's container is {state_of(main)}.")
        self._require_sidecars(family, "SANDBOX_RESUME_FAILED", "resumed")
        done: list[Summary] = []
        try:
            await self._each("unpause", family.sidecars, "paused", done)
            await self._each("unpause", [main], "paused", done)
        except BaseException as error:
            await self._undo("pause", reversed(done))
            raise self._told(error, "SANDBOX_RESUME_FAILED", "The sandbox could not be resumed") from None
        return await self._as_now(family, "paused", "running")

    async def _family(self, sandbox_id: str) -> tuple[Family, Summary]:
        family = await self._census.one(sandbox_id)
        if family.main is None:
            raise NotFound(scoped(SCOPE, "SANDBOX_NOT_FOUND"), "The engine has no container of this sandbox.")
        return family, family.main

    def _require_sidecars(self, family: Family, reason: str, doing: str) -> None:
        """A sandbox whose guard is gone is left as it is."""
        assert family.main is not None  # noqa: S101 - `_family` saw to it
        guarded = labels.EGRESS_TOKEN in labels.reserved(labels_of(family.main))
        if guarded and not family.sidecars:
            raise EngineFailure(
                scoped(SCOPE, reason), f"The sandbox cannot be {doing}: the sidecar of its network policy is gone."
            )

    async def _each(self, method: str, containers: Iterable[Summary], state: str, done: list[Summary]) -> None:
        """Call ``method`` for those in ``state``; ``done`` gets what succeeded. Raises the first error."""
        wanted = [each for each in containers if state_of(each) == state]
        results = await asyncio.gather(
            *(self._engine.call(method, each["Id"]) for each in wanted), return_exceptions=True
        )
        done += [each for each, result in zip(wanted, results, strict=True) if not isinstance(result, BaseException)]
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _undo(self, method: str, containers: Iterable[Summary]) -> None:
        for container in containers:
            try:
                await self._engine.call(method, container["Id"])
            except (EngineError, ShoalError):
                continue  # the first failure is what is reported; the next comparison shows how it is

    def _told(self, error: BaseException, reason: str, what: str) -> BaseException:
        return error.failure(scoped(SCOPE, reason), what) if isinstance(error, EngineError) else error

    async def _as_now(self, family: Family, before: str, after: str) -> Workload:
        """The workload after the change, from what was read before it."""

        def turned(summary: Summary) -> Summary:
            return {**summary, "State": after} if state_of(summary) == before else summary

        assert family.main is not None  # noqa: S101 - as before
        now = Family(id=family.id, main=turned(family.main), sidecars=[turned(each) for each in family.sidecars])
        workload = await self._census.workload(now)
        if workload is None:
            raise NotFound(scoped(SCOPE, "SANDBOX_NOT_FOUND"), f"The container {name_of(family.main)} has vanished.")
        return workload
