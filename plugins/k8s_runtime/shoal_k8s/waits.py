"""Waiting for what the cluster does in its own time: a pod that starts, a pause, a removal, a place in a pool.

Nobody asks again and again: an informer's word (`Waits.wake`) wakes whoever waits for that sandbox.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from shoal.errors import EngineFailure, NotFound, RateLimited
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import Progress
from shoal_k8s.api.failures import QUOTA_EXCEEDED, over_quota
from shoal_k8s.config import KubernetesSettings
from shoal_k8s.pods import quota
from shoal_k8s.pods.status import PULLING, judge, refused_image
from shoal_k8s.pools.pooled import EXHAUSTED
from shoal_k8s.providers.interface import UNEXPLAINED, WorkloadProvider

SCOPE: Final = "KUBERNETES"
REFUSALS: Final = 2
"""How often a registry may say that there is no such image before a create is given up; the first may be too early."""


class Waits:
    """Used on the event loop only.

    Args:
        trouble: what the cluster's events say of a sandbox that does not become ready; None if nothing.
    """

    def __init__(
        self,
        provider: WorkloadProvider,
        settings: KubernetesSettings,
        trouble: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._provider = provider
        self._settings = settings
        self._trouble = trouble
        self._events: dict[str, list[asyncio.Event]] = {}

    def wake(self, sandbox_id: str) -> None:
        """Something of that sandbox changed."""
        for changed in self._events.get(sandbox_id, ()):
            changed.set()

    async def running(self, sandbox_id: str, progress: Progress) -> Workload:
        """The workload once it runs.

        Raises EngineFailure once it cannot, or has taken too long; RateLimited if its pool has had no pod for too long;
        NotFound once it is gone: somebody deleted it.
        """
        last: Workload | None = None
        pulls = _Pulls()
        patience = _Patience(self._most_patient)
        deadline = time.monotonic() + self._settings.sandbox_create_timeout_seconds
        with self._listening(sandbox_id) as changed:
            while time.monotonic() < deadline:
                changed.clear()
                workload = self._provider.find(sandbox_id)
                if workload is None:
                    raise NotFound(f"{SCOPE}::SANDBOX_NOT_FOUND", "The sandbox was deleted while it was being made.")
                if await self._settled(sandbox_id, workload):
                    return self._provider.find(sandbox_id) or workload
                if patience.over(workload):
                    raise self._exhausted(workload)
                pulls.see(workload)
                if workload != last:
                    progress(workload.reason or "PENDING", workload.message or "The pod is starting.")
                    last = workload
                await _next(changed, min(deadline, patience.until))
        said = await self._late(sandbox_id, last)
        reason = last.reason if last is not None and last.reason in PULLING else "POD_READY_TIMEOUT"
        raise EngineFailure(QUOTA_EXCEEDED if over_quota(said) else f"{SCOPE}::{reason}", said)

    async def allocated(self, sandbox_id: str) -> None:
        """Returns once the pool's controller has given it a pod, or something else than a pod keeps it waiting.

        Raises RateLimited once the pool has had none for too long.
        """
        patience = _Patience(self._most_patient)
        deadline = time.monotonic() + self._most_patient
        with self._listening(sandbox_id) as changed:
            while True:
                changed.clear()
                workload = self._provider.find(sandbox_id)
                if workload is not None and (workload.phase is not Phase.PENDING or workload.pool is not None):
                    return None
                if patience.over(workload):
                    raise self._exhausted(workload)
                if patience.until == float("inf") and time.monotonic() >= deadline:
                    return await self._check_starved(sandbox_id)
                await _next(changed, min(deadline, patience.until))

    async def _check_starved(self, sandbox_id: str) -> None:
        """Raise RateLimited where the pool has no pod, and its controller is too old to say so."""
        said = await self._provider.starved(sandbox_id)
        if said is not None:
            after = float(self._settings.pool_acquisition_timeout_seconds)
            raise RateLimited(f"{SCOPE}::{EXHAUSTED}", said, retry_after=after)

    async def _settled(self, sandbox_id: str, workload: Workload) -> bool:
        """Whether it runs, has run to its end already, or is on its way out. Raises EngineFailure if it never will."""
        if workload.phase is Phase.FAILED and workload.reason == UNEXPLAINED:
            await self._provider.look(sandbox_id)  # for the words of whoever saw it
            workload = self._provider.find(sandbox_id) or workload
        if workload.phase is Phase.STOPPING:
            return True
        pod = self._provider.pod(sandbox_id)
        never = pod is not None and judge(pod).hopeless and judge(pod).reason != "POD_FAILED"
        if never or (workload.phase is Phase.FAILED and workload.reason in ("QUOTA_EXCEEDED", UNEXPLAINED, *PULLING)):
            reason = "POD_FAILED" if workload.reason in (None, UNEXPLAINED) else workload.reason
            raise EngineFailure(f"{SCOPE}::{reason}", workload.message or "The pod failed.")
        return workload.phase in (Phase.RUNNING, Phase.EXITED, Phase.FAILED)

    @property
    def _most_patient(self) -> float:
        """Seconds without a pod in the pool after which a create is given up."""
        settings = self._settings
        return float(min(settings.pool_acquisition_timeout_seconds, settings.sandbox_create_timeout_seconds))

    def _exhausted(self, workload: Workload | None) -> RateLimited:
        said = (workload.message if workload is not None else None) or "The pool has no free pod."
        after = float(self._settings.pool_acquisition_timeout_seconds)
        return RateLimited(f"{SCOPE}::{EXHAUSTED}", said, retry_after=after)

    async def _late(self, sandbox_id: str, last: Workload | None) -> str:
        said = [f"Not ready within {self._settings.sandbox_create_timeout_seconds} s."]
        if last is not None and last.message:
            said.append(f"Last seen: {last.message}")
        trouble = await self._trouble(sandbox_id)
        if trouble is not None:
            said.append(f"Last event: {self._explained(sandbox_id, trouble)}")
        return " ".join(said)

    def _explained(self, sandbox_id: str, trouble: str) -> str:
        spec = self._provider.pod_spec(sandbox_id)
        return quota.explained(trouble, spec) if over_quota(trouble) and spec is not None else trouble

    @contextmanager
    def _listening(self, sandbox_id: str) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()
        self._events.setdefault(sandbox_id, []).append(changed)
        try:
            yield changed
        finally:
            self._events[sandbox_id].remove(changed)
            if not self._events[sandbox_id]:
                del self._events[sandbox_id]


class _Patience:
    """Adds up the time for which a pool had no pod."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._spent = 0.0
        self._since: float | None = None
        self.until = float("inf")
        """When it will be over if nothing changes (monotonic)."""

    def over(self, workload: Workload | None) -> bool:
        """Whether the pool has had none for too long, counted up to what is seen now."""
        now = time.monotonic()
        if self._since is not None:
            self._spent += now - self._since
        waiting = workload is not None and workload.reason == EXHAUSTED
        self._since = now if waiting else None
        self.until = now + self._limit - self._spent if waiting else float("inf")
        return waiting and self._spent >= self._limit


class _Pulls:
    """Counts an image's failed pulls."""

    def __init__(self) -> None:
        self._failed = False
        self._refusals = 0

    def see(self, workload: Workload) -> None:
        """Raise EngineFailure once a registry has refused it for the second time."""
        failed = workload.reason == "ErrImagePull"
        if failed and not self._failed and refused_image(workload.message or ""):
            self._refusals += 1
            if self._refusals == REFUSALS:
                raise EngineFailure(f"{SCOPE}::{workload.reason}", workload.message or "The image cannot be pulled.")
        self._failed = failed


async def _next(changed: asyncio.Event, until: float) -> None:
    """A change, or that moment (monotonic), whichever is first."""
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            await changed.wait()
    except TimeoutError:
        return
