"""What the objects of old and new controllers mean (docs/wire/kubernetes.md sections 4, 6, 11 and 14)."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from shoal.models.workload import Phase
from shoal_k8s.pods.objects import Pod
from shoal_k8s.pods.status import is_over, judge
from shoal_k8s.pools import pooled
from shoal_k8s.pools.objects import ALLOCATED, FINALIZER, kept
from shoal_k8s.providers.agent_sandbox import AgentSandbox, AgentSandboxProvider
from shoal_k8s.providers.batch_objects import BatchSandbox
from shoal_k8s.providers.batchsandbox import ENDPOINTS, BatchSandboxProvider
from shoal_k8s.providers.template import merge

BATCH = BatchSandboxProvider.__new__(BatchSandboxProvider)
"""Its verdicts are functions of what they are given: neither needs a cluster."""
AGENT = AgentSandboxProvider.__new__(AgentSandboxProvider)
FOREIGN = "sandbox.opensandbox.io/alloc-release"


def batch(status: dict[str, Any] | None = None, **meta: Any) -> BatchSandbox:
    return msgspec.convert({"metadata": meta, "status": status or {}}, BatchSandbox)


def agent(mode: str, *conditions: dict[str, str], **status: Any) -> AgentSandbox:
    thing = {"metadata": {}, "spec": {"operatingMode": mode}, "status": {"conditions": conditions, **status}}
    return msgspec.convert(thing, AgentSandbox)


def pod(**status: Any) -> Pod:
    return msgspec.convert({"metadata": {"name": "p"}, "status": status}, Pod)


def condition(kind: str, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, **more}


def addresses(*found: str) -> dict[str, str]:
    return {ENDPOINTS: json.dumps(found)}


READY = pod(phase="Running", podIP="10.0.0.1", conditions=[condition("Ready"), condition("PodScheduled")])


@pytest.mark.parametrize(
    ("status", "phase", "reason"),
    [
        ({"taskFailed": 1}, Phase.FAILED, "TASK_FAILED"),
        ({"taskFailed": 1, "phase": "Paused"}, Phase.PAUSED, "PAUSED"),
        ({"phase": "Succeed"}, Phase.RUNNING, "RUNNING"),
        ({"phase": "Pausing"}, Phase.PAUSING, "PAUSING"),
        ({"phase": "Resuming"}, Phase.RESUMING, "RESUMING"),
        ({"phase": "Failed", "conditions": [condition("PodFailed", message="bad")]}, Phase.FAILED, "FAILED"),
        ({"phase": "Pending"}, Phase.PENDING, "BATCHSANDBOX_PENDING"),
        ({"phase": "Pending", "conditions": [condition("PoolAllocationPending")]}, Phase.PENDING, pooled.EXHAUSTED),
        ({"ready": 1}, Phase.RUNNING, "POD_READY_WITH_IP"),
        ({}, Phase.PENDING, "BATCHSANDBOX_PENDING"),
    ],
)
def test_batchsandboxes(status: dict[str, Any], phase: Phase, reason: str) -> None:
    verdict = BATCH.verdict(batch(status, annotations=addresses("", "10.0.0.2")), None)
    assert (verdict.phase, verdict.reason) == (phase, reason)


def wish(pause: bool, phase: str, seen: int | None, *conditions: dict[str, str]) -> BatchSandbox:
    status = {"phase": phase, "conditions": conditions, **({} if seen is None else {"pauseObservedGeneration": seen})}
    return msgspec.convert({"metadata": {"generation": 2}, "spec": {"pause": pause}, "status": status}, BatchSandbox)


@pytest.mark.parametrize(
    ("thing", "phase", "reason"),
    [
        (wish(True, "Succeed", 1), Phase.PAUSING, "PAUSING"),
        (wish(True, "Succeed", None), Phase.PAUSING, "PAUSING"),
        (wish(True, "Succeed", 1, condition("PauseFailed")), Phase.PAUSING, "PAUSING"),  # from the wish before this one
        (wish(True, "Succeed", 2, condition("PauseFailed")), Phase.RUNNING, "PAUSE_FAILED"),
        (wish(True, "Succeed", 2), Phase.RUNNING, "PAUSE_FAILED"),  # lost
        (wish(False, "Paused", 2), Phase.PAUSED, "RESUME_FAILED"),  # likewise
        (wish(True, "Paused", 2), Phase.PAUSED, "PAUSED"),
        (wish(False, "Paused", 1), Phase.RESUMING, "RESUMING"),
        (wish(False, "Paused", 2, condition("ResumeFailed")), Phase.PAUSED, "RESUME_FAILED"),
        (wish(False, "Succeed", 2), Phase.RUNNING, "RUNNING"),
    ],
)
def test_what_was_asked_for_shows_before_the_controller_has_seen_it(
    thing: BatchSandbox, phase: Phase, reason: str
) -> None:
    verdict = BATCH.verdict(thing, None)
    assert (verdict.phase, verdict.reason) == (phase, reason)


@pytest.mark.parametrize(
    ("thing", "taken_back"),
    [
        (wish(True, "Paused", 2), True),
        (wish(True, "Paused", None), True),
        (wish(False, "Succeed", 2), True),
        (wish(True, "Paused", 1), False),
        (wish(True, "Succeed", 1), False),
        (wish(True, "Pausing", 2), False),
        (wish(False, "Paused", 1), False),
        (batch({"phase": "Succeed"}), False),
    ],
)
def test_a_renewal_takes_back_a_wish_that_is_done(thing: BatchSandbox, taken_back: bool) -> None:
    patch = BATCH._renewal(thing, None)["spec"]
    assert ("pause" in patch, patch.get("pause")) == (taken_back, None)


def ended(code: int, at: str = "2026-01-01T00:00:05Z") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "finishedAt": at}}


def pod_of(policy: str, main: dict[str, Any], egress: dict[str, Any] | None = None, phase: str = "Running") -> Pod:
    states = {"sandbox": main, **({"egress": egress} if egress else {})}
    statuses = [{"name": name, "state": state} for name, state in states.items()]
    spec = {"restartPolicy": policy, "containers": [{"name": name} for name in states]}
    thing = {"metadata": {"name": "p"}, "spec": spec, "status": {"phase": phase, "containerStatuses": statuses}}
    return msgspec.convert(thing, Pod)


RUNS: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
EARLIER = "2026-01-01T00:00:04Z"
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}


@pytest.mark.parametrize(
    ("seen", "phase", "reason", "over"),
    [
        (pod_of("Never", ended(0)), Phase.EXITED, "POD_SUCCEEDED", True),
        (pod_of("Never", ended(3)), Phase.FAILED, "POD_FAILED", True),
        (pod_of("OnFailure", ended(0)), Phase.EXITED, "POD_SUCCEEDED", True),
        (pod_of("OnFailure", ended(3)), Phase.RESTARTING, "RESTARTING", False),
        (pod_of("Always", ended(0)), Phase.RESTARTING, "RESTARTING", False),
        (pod_of("Always", BACK_OFF), Phase.RESTARTING, "CrashLoopBackOff", False),
        (pod_of("Always", ended(0), phase="Succeeded"), Phase.EXITED, "POD_SUCCEEDED", False),
        (pod_of("Never", RUNS, ended(0)), Phase.FAILED, "SIDECAR_FAILED", True),
        (pod_of("Always", RUNS, ended(0)), Phase.FAILED, "SIDECAR_FAILED", True),
        (pod_of("Never", ended(0), RUNS), Phase.EXITED, "POD_SUCCEEDED", True),
        (pod_of("Never", ended(0), ended(0, "2026-01-01T00:00:09Z")), Phase.EXITED, "POD_SUCCEEDED", True),
        (
            pod_of("Never", ended(137), ended(0, "2026-01-01T00:00:04Z"), "Failed"),
            Phase.FAILED,
            "SIDECAR_FAILED",
            False,
        ),
        (pod_of("Never", ended(137), ended(0), "Failed"), Phase.FAILED, "SIDECAR_FAILED", False),
    ],
)
def test_what_ended_first_is_the_end(seen: Pod, phase: Phase, reason: str, over: bool) -> None:
    verdict = judge(seen)
    assert (verdict.phase, verdict.reason, is_over(seen)) == (phase, reason, over)


def test_a_failure_is_told_in_the_words_of_who_saw_it() -> None:
    pulling = pod_of("Never", {"waiting": {"reason": "ErrImagePull", "message": "connection refused"}}, phase="Pending")
    verdict = BATCH.verdict(batch({"phase": "Failed", "conditions": [condition("PodFailed", message="1/1")]}), pulling)
    assert (verdict.phase, verdict.reason, "connection refused" in verdict.message) == (
        Phase.FAILED,
        "ErrImagePull",
        True,
    )


@pytest.mark.parametrize("status", ["Succeed", "Pending", "Failed"])
def test_a_pod_knows_of_an_end_before_its_controller(status: str) -> None:
    assert BATCH.verdict(batch({"phase": status}), pod_of("Never", ended(0))).phase is Phase.EXITED
    ready = agent("Running", condition("Ready"))
    assert AGENT.verdict(ready, pod_of("Never", RUNS, ended(0))).reason == "SIDECAR_FAILED"


@pytest.mark.parametrize(
    ("counts", "phase"),
    [({"taskSucceed": 1}, Phase.EXITED), ({"taskSucceed": 1, "taskRunning": 1}, Phase.RUNNING)],
)
def test_a_task_that_ended_is_the_end(counts: dict[str, int], phase: Phase) -> None:
    assert BATCH.verdict(batch({"phase": "Succeed", **counts}), None).phase is phase


@pytest.mark.parametrize(
    ("thing", "seen", "phase"),
    [
        (agent("Running", condition("Ready", "False", reason="SandboxExpired")), None, Phase.EXITED),
        (agent("Running", condition("Suspended"), condition("Ready")), READY, Phase.RUNNING),  # never cleared
        (agent("Suspended", condition("Suspended")), None, Phase.PAUSED),
        (agent("Suspended", condition("Suspended")), READY, Phase.PAUSING),  # from the pause before this one
        (agent("Running", condition("Ready", "False", reason="PodFailed")), None, Phase.FAILED),
        (agent("Running", condition("Ready", "False", reason="DependenciesNotReady")), None, Phase.PENDING),
        (agent("Running"), READY, Phase.RUNNING),
        (agent("Running"), None, Phase.PENDING),
    ],
)
def test_agent_sandboxes(thing: AgentSandbox, seen: Pod | None, phase: Phase) -> None:
    assert AGENT.verdict(thing, seen).phase is phase


def test_the_address_is_the_first_that_is_there() -> None:
    assert BATCH.host(batch(annotations=addresses("", "10.0.0.2")), None) == "10.0.0.2"
    assert BATCH.host(batch(annotations=addresses()), None) is None
    assert BATCH.host(batch(annotations={ENDPOINTS: "{not json"}), READY) == "10.0.0.1"
    assert AGENT.host(agent("Running", podIPs=["fd00::1"]), None) == "fd00::1"


def taken(pods: list[str], pool: str | None = "warm", **annotations: str) -> BatchSandbox:
    held = {"pods": pods, "generation": 1, **({"poolRef": pool} if pool else {})}
    thing = {
        "metadata": {
            "annotations": {ALLOCATED: json.dumps(held), **addresses("10.0.0.3"), **annotations},
            "finalizers": [FINALIZER],
        },
        "spec": {"poolRef": "warm"},
        "status": {"phase": "Succeed", "allocated": 1},
    }
    return msgspec.convert(thing, BatchSandbox)


def test_a_pod_that_the_controller_took_back_is_never_served() -> None:
    whole = taken(["a"])
    assert (BATCH.host(whole, None), BATCH.allocated_from(whole)) == ("10.0.0.3", "warm")
    for text in ('{"pods":["a"]}', "not json", '{"pods":"a"}'):
        released = taken(["a"], **{FOREIGN: text})
        assert kept(released.metadata.annotations) == []
        assert (BATCH.host(released, None), BATCH.allocated_from(released)) == (None, None)
    elsewhere = taken(["a"], **{FOREIGN: '{"pods":["b"]}'})
    assert BATCH.host(elsewhere, None) == "10.0.0.3"


def test_an_allocation_is_told_only_once_it_is_certain() -> None:
    for doubtful in (taken(["a"], pool=None), taken(["a"], pool="other"), taken(["a", "a"]), taken([])):
        assert BATCH.allocated_from(doubtful) is None
    bare = taken(["a"])
    bare.metadata.finalizers = []
    assert BATCH.allocated_from(bare) is None


def test_the_command_of_a_task_is_read_back() -> None:
    words = ["sh", "-c", 'echo "it\'s me"; sleep 1']
    script = "exec /opt/opensandbox/bootstrap.sh sh -c 'echo \"it'\"'\"'s me\"; sleep 1'"
    assert pooled.command_of(["/bin/sh", "-c", script]) == words
    assert pooled.command_of(["/bin/sh", "-c", "something else"]) == []
    assert pooled.command_of([]) == []


UNSCHEDULED = {"reason": "Unschedulable", "type": "PodScheduled", "status": "False"}


@pytest.mark.parametrize(
    ("selector", "said", "reason"),
    [
        ("kubernetes.io/arch", "0/1 nodes: 1 node(s) didn't match node selector.", "POD_PLATFORM_UNSCHEDULABLE"),
        (
            "kubernetes.io/arch",
            "0/1 nodes: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1: not helpful.",
            "POD_PLATFORM_UNSCHEDULABLE",
        ),
        ("kubernetes.io/arch", "0/2 nodes: 1 Insufficient cpu, 1 node(s) didn't match node selector.", "UNSCHEDULABLE"),
        ("zone", "0/1 nodes: 1 node(s) didn't match node selector.", "UNSCHEDULABLE"),
    ],
)
def test_why_a_pod_is_not_scheduled(selector: str, said: str, reason: str) -> None:
    waiting = pod(phase="Pending", conditions=[{**UNSCHEDULED, "message": said}])
    waiting.spec.node_selector = {selector: "x"}
    verdict = judge(waiting)
    assert (verdict.reason, verdict.message) == (reason, said)


def test_lists_of_a_template_are_kept_by_name() -> None:
    template = {
        "imagePullSecrets": [{"name": "registry"}],
        "initContainers": [{"name": "first", "image": "a"}],
        "tolerations": [{"key": "gpu"}],
        "containers": [{"name": "sandbox", "env": [{"name": "A", "value": "t"}, {"name": "B", "value": "t"}]}],
    }
    own = {
        "imagePullSecrets": [{"name": "mine"}],
        "initContainers": [{"name": "execd-installer"}],
        "containers": [{"name": "sandbox", "command": ["x"], "env": [{"name": "A", "value": "o"}]}],
    }
    merged = merge(template, own)
    assert merged["imagePullSecrets"] == [{"name": "mine"}, {"name": "registry"}]
    assert [each["name"] for each in merged["initContainers"]] == ["execd-installer", "first"]
    assert merged["tolerations"] == template["tolerations"]
    (sandbox,) = merged["containers"]
    assert sandbox["env"] == [{"name": "A", "value": "o"}, {"name": "B", "value": "t"}]
