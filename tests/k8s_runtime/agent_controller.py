"""A small controller of agent-sandboxes. What it keeps to, as the real one was seen to act:

- The pod is the template's: its restart policy (``Always`` where it says none) and its grace period (30 s likewise).
- When the object goes, the cluster collects the pod, which takes its own grace period.
- Suspending deletes the pod. ``Suspended`` is False with ``PodTerminating`` until the pod is gone, which takes its
  grace period, and only then True with ``PodTerminated``. After a resume it is False with ``NotSuspended``, not absent.
- A resume waits for the old pod's end: the new one has its name.
- Conditions tell the generation that they speak of. ``status.selector`` is there from the first pod on.
- A pod that ended is ``Ready`` False with ``PodSucceeded`` or ``PodFailed``, and is left.
- At its time it is first ``SandboxExpired``; then the pod goes, then the object.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tests.k8s_runtime.controllers import AGENT, Controller, Object, condition, owned, ready


class AgentController(Controller):
    resource, expiry = AGENT, "shutdownTime"

    def pod_name(self, thing: Object) -> str:
        name: str = thing["metadata"]["name"]
        return name

    async def _look_after(self, thing: Object) -> None:
        until = thing["spec"].get(self.expiry)
        over = until and datetime.fromisoformat(until) <= datetime.now(UTC)
        if over and "SandboxExpired" not in {each["reason"] for each in thing.get("status", {}).get("conditions", [])}:
            expired = condition("Ready", "Sandbox has expired", "False", "SandboxExpired")
            await self.tell(thing, {"conditions": [expired]})
        else:
            if over:
                await self.drop_pod(thing)
            await super()._look_after(thing)

    async def reconcile(self, thing: Object, pod: Object | None) -> None:
        pod = owned(thing, pod)
        if thing["spec"].get("operatingMode") == "Suspended":
            await self.drop_pod(thing)
            await self._tell(thing, pod, self._suspended(pod), condition("Ready", "", "False", "SandboxSuspended"))
            return
        if pod is None:
            await self._tell(thing, None, _AWAKE, condition("Ready", "Pod does not exist", "False"))
            await self.make_pod(thing, thing["spec"]["podTemplate"])
            return
        await self._tell(thing, pod, _AWAKE, self._readiness(pod))

    def _suspended(self, pod: Object | None) -> Object:
        if pod is None:
            return condition("Suspended", "Pod has been terminated. Sandbox is suspended", "True", "PodTerminated")
        return condition("Suspended", "Pod is terminating. Sandbox is suspending", "False", "PodTerminating")

    def _readiness(self, pod: Object) -> Object:
        phase = pod.get("status", {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            return condition("Ready", f"Pod {phase.lower()}", "False", f"Pod{phase}")
        return condition("Ready", "Pod is Ready" if ready(pod) else "Not yet.", "True" if ready(pod) else "False")

    async def _tell(self, thing: Object, pod: Object | None, *conditions: Object) -> None:
        generation = thing["metadata"]["generation"]
        addresses = [each["ip"] for each in (pod or {}).get("status", {}).get("podIPs", [])]
        status: Object = {"conditions": [{**each, "observedGeneration": generation} for each in conditions]}
        status["podIPs"] = addresses
        if pod is not None:
            status["selector"] = f"agents.x-k8s.io/sandbox-name={thing['metadata']['name']}"
        await self.tell(thing, status)


_AWAKE = condition("Suspended", "Sandbox is not suspended", "False", "NotSuspended")
