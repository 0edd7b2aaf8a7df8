"""The Kubernetes runtime with plain pods passes the conformance kit."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime

import pytest

from shoal.config.settings import Settings
from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance
from shoal_k8s.config import KubernetesSettings, SecureRuntimeSettings
from shoal_k8s.runtime import KubernetesRuntime

pytestmark = [pytest.mark.needs("k8s"), pytest.mark.timeout(300)]


class TestPods(RuntimeConformance):
    @pytest.fixture
    def conformance(self, namespace: str) -> Harness:
        kubernetes = KubernetesSettings(
            kubeconfig_path=os.environ["KUBECONFIG"], namespace=namespace, workload_provider="pod"
        )
        plan = WorkloadPlan(
            id=str(uuid.uuid4()),
            runtime="kubernetes",
            created_at=datetime.now(UTC),
            command=["sleep", "600"],
            image="shoal-test/busybox:latest",
        )
        make = lambda: KubernetesRuntime(Settings(), kubernetes, SecureRuntimeSettings())  # noqa: E731 - one expression
        return Harness(make=make, plan=plan, patience=60.0)
