"""Logs, events and description of a sandbox's pod (docs/wire/kubernetes.md section 19); these ask the API server."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from msgspec.structs import replace

from shoal.errors import NotFound, ShoalError
from shoal.plugin.interfaces import LogQuery
from shoal_k8s.api import KubeClient, KubeList, Meta
from shoal_k8s.api.failures import told_of_diagnostics
from shoal_k8s.pods import describe
from shoal_k8s.pods.objects import EVENTS, PODS, KubeEvent, Pod
from shoal_k8s.pods.status import MAIN
from shoal_k8s.providers.interface import WorkloadProvider

NOT_FOUND: Final = "KUBERNETES::SANDBOX_NOT_FOUND"
MAX_MESSAGE_LENGTH: Final = 500
"""Characters of an event in a status message."""


class PodDiagnostics:
    """Raises NotFound, and what the API server's refusals become."""

    def __init__(self, client: KubeClient, provider: WorkloadProvider) -> None:
        self._client = client
        self._provider = provider

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        """The last lines of one container."""
        pod = await self._pod(sandbox_id)
        known = [container.name for container in [*pod.spec.containers, *pod.spec.init_containers]]
        wanted = query.container or (MAIN if MAIN in known else known[0])
        if wanted not in known:
            raise NotFound(NOT_FOUND, f"The sandbox has no container {wanted!r}.")
        asked = {"container": wanted, "tailLines": str(query.tail), "timestamps": "true"}
        if query.since is not None:
            asked["sinceSeconds"] = str(max(1, int((datetime.now(UTC) - query.since).total_seconds())))
        with told_of_diagnostics():
            text = await self._client.text(PODS, pod.metadata.namespace, pod.metadata.name, "log", asked)
        return text.rstrip("\n") or "(no logs)"

    async def events(self, sandbox_id: str, limit: int) -> str:
        """Those of the object that stands for the sandbox, then those of its pod: a pod that never came has none."""
        with told_of_diagnostics():
            found = await self._events(sandbox_id)
        if found is None:
            raise NotFound(NOT_FOUND, "The sandbox has no pod.")
        return describe.events_text(found, limit)

    async def trouble(self, sandbox_id: str) -> str | None:
        """The latest warning among them; None if there is none, or if they cannot be asked for."""
        try:
            with told_of_diagnostics():
                found = await self._events(sandbox_id) or []
        except ShoalError:
            return None
        warnings = [f"{event.reason}: {event.message}" for event in found if event.type == "Warning"]
        return warnings[-1][:MAX_MESSAGE_LENGTH] if warnings else None

    async def inspect(self, sandbox_id: str) -> str:
        """The pod for people."""
        return describe.inspect_text(await self._pod(sandbox_id))

    async def _events(self, sandbox_id: str) -> list[KubeEvent] | None:
        """None if there is nothing that they could be about."""
        pod = await self._provider.find_pod(sandbox_id)
        subjects = [self._provider.subject(sandbox_id), pod.metadata if pod is not None else None]
        known = [subject for subject in subjects if subject is not None]
        if not known:
            return None
        return [_without_pod(event) for subject in known for event in await self._about(subject)]

    async def _about(self, subject: Meta) -> list[KubeEvent]:
        selector = f"involvedObject.name={subject.name},involvedObject.uid={subject.uid}"
        found = await self._client.list(EVENTS, subject.namespace, KubeList[KubeEvent], {"fieldSelector": selector})
        return found.items or []

    async def _pod(self, sandbox_id: str) -> Pod:
        with told_of_diagnostics():
            pod = await self._provider.find_pod(sandbox_id)
        if pod is None:
            raise NotFound(NOT_FOUND, "The sandbox has no pod.")
        return pod


def _without_pod(event: KubeEvent) -> KubeEvent:
    """Controllers put the whole pod behind what they say of it, environment and tokens included."""
    said, mark, _ = (event.message or "").partition(", pod: {")
    return replace(event, message=said) if mark else event
