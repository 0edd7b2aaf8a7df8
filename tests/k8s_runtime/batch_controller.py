"""A small controller of BatchSandboxes. What it keeps to, as the real one was seen to act:

- The pod is the template's: its restart policy (``Always`` where it says none) and its grace period (30 s likewise).
- When the object goes, the cluster collects the pod, which takes its own grace period. A pod that goes alone is made
  anew.
- A wish in ``spec.pause`` counts once, by the object's generation, which ``status.pauseObservedGeneration``
  acknowledges.
- A pause is ``Pausing``, then the pod is deleted and it is ``Paused`` at once, while the pod still takes its time:
  until then its address stays in the endpoints.
- A resume is ``Resuming``; the new pod has the old one's name, and waits for its end.
- A pause that fails goes back to ``Succeed`` with the condition ``PauseFailed``.
- A container that cannot start makes it ``Failed`` for good, with a message that counts pods and names one word.
- A pod that is not ready (any more) makes it ``Pending``. A condition that is not true is absent.
"""

from __future__ import annotations

import msgspec
from tests.k8s_runtime.controllers import BATCH, Controller, Object, condition, going, owned, ready

ENDPOINTS = "sandbox.opensandbox.io/endpoints"
STUCK = ("CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "CreateContainerConfigError")


class BatchController(Controller):
    resource, expiry = BATCH, "expireTime"
    required = dict.fromkeys(("allocated", "ready", "replicas", "taskFailed", "taskPending"), 0) | dict.fromkeys(
        ("taskRunning", "taskSucceed", "taskUnknown"), 0
    )

    def pod_name(self, thing: Object) -> str:
        return f"{thing['metadata']['name']}-0"

    async def reconcile(self, thing: Object, pod: Object | None) -> None:
        status, wish = thing.get("status", {}), thing["spec"].get("pause")
        pod = owned(thing, pod)
        if status.get("phase") == "Pausing":
            await self._finish_pause(thing)
        elif status.get("phase") != "Resuming" and wish is not None and self._unseen(thing):
            await self._acknowledge(thing, "Pausing" if wish else "Resuming")
        elif status.get("phase") == "Paused":
            await self.tell(thing, {}, self._endpoints(pod))
        elif pod is None:
            await self.tell(thing, {"ready": 0}, self._endpoints(pod) if status.get("phase") else None)
            await self.make_pod(thing, thing["spec"]["template"])
        else:
            await self._follow(thing, pod)

    def _unseen(self, thing: Object) -> bool:
        seen: int = thing.get("status", {}).get("pauseObservedGeneration", 0)
        return seen < int(thing["metadata"]["generation"])

    async def _acknowledge(self, thing: Object, phase: str, conditions: list[Object] | None = None) -> None:
        seen = thing["metadata"]["generation"]
        await self.tell(thing, {"phase": phase, "pauseObservedGeneration": seen, "conditions": conditions or []})

    async def _finish_pause(self, thing: Object) -> None:
        if self.failing:
            await self._acknowledge(thing, "Succeed", [condition("PauseFailed", self.failing)])
        else:
            await self.drop_pod(thing)
            await self._acknowledge(thing, "Paused")

    async def _follow(self, thing: Object, pod: Object) -> None:
        phase, seen = thing.get("status", {}).get("phase"), thing["metadata"]["generation"]
        noted, stuck = self._endpoints(pod), _stuck(pod)
        if stuck is not None or phase == "Failed":
            said = f"1/1 observed pods failed; primary reason={stuck}; sample pod={pod['metadata']['name']}"
            failed = {"conditions": [condition("PodFailed", said)]} if phase != "Failed" else {}
            await self.tell(thing, {"phase": "Failed", "ready": 0, "allocated": 1, **failed}, noted)
        elif ready(pod) and not going(pod):
            now = {"phase": "Succeed", "ready": 1, "allocated": 1, "pauseObservedGeneration": seen}
            await self.tell(thing, {**now, "conditions": self._failures(thing)}, noted)
        elif phase != "Resuming":
            now = {"phase": "Pending", "ready": 0, "allocated": 1, "pauseObservedGeneration": seen}
            await self.tell(thing, {**now, "conditions": self._failures(thing)}, noted)

    def _failures(self, thing: Object) -> list[Object]:
        """Only an operation takes back what an operation said."""
        held: list[Object] = thing.get("status", {}).get("conditions", [])
        return [each for each in held if each["type"] in ("PauseFailed", "ResumeFailed")]

    def _endpoints(self, pod: Object | None) -> dict[str, str]:
        addresses = [] if pod is None else [pod.get("status", {}).get("podIP", "")]
        return {ENDPOINTS: msgspec.json.encode(addresses).decode()}


def _stuck(pod: Object) -> str | None:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    reasons = [each["state"].get("waiting", {}).get("reason") for each in statuses]
    return next((reason for reason in reasons if reason in STUCK), None)
