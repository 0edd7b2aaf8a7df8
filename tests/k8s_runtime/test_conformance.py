"""The Kubernetes runtime passes the conformance kit, whichever provider it has."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import pytest
from tests.k8s_runtime.agent_controller import AgentController
from tests.k8s_runtime.batch_controller import BatchController
from tests.k8s_runtime.snapshot_controller import SnapshotController
from tests.k8s_runtime.test_providers import runtime_for

from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance
from shoal_k8s.api import KubeClient

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]


def harness(namespace: str, provider: str) -> Harness:
    plan = WorkloadPlan(
        id=str(uuid.uuid4()),
        runtime="kubernetes",
        created_at=datetime.now(UTC),
        command=["sleep", "600"],
        image="shoal-test/busybox:latest",
    )
    return Harness(make=lambda: runtime_for(namespace, provider), plan=plan, patience=150.0)


class TestPods(RuntimeConformance):
    @pytest.fixture
    def conformance(self, namespace: str) -> Harness:
        return harness(namespace, "pod")


@pytest.mark.needs("docker")
class TestBatchSandboxes(RuntimeConformance):
    @pytest.fixture
    async def conformance(self, client: KubeClient, namespace: str) -> AsyncIterator[Harness]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(BatchController(client, namespace).running())
            await stack.enter_async_context(SnapshotController(client, namespace).running())
            yield harness(namespace, "batchsandbox")


class TestAgentSandboxes(RuntimeConformance):
    @pytest.fixture
    async def conformance(self, client: KubeClient, namespace: str) -> AsyncIterator[Harness]:
        async with AgentController(client, namespace).running():
            yield harness(namespace, "agent-sandbox")
