"""The conformance suite against the fake runtime of the engine's tests: it keeps the rules, too."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.conformance.scripted import ScriptedRuntime, ScriptedWorld

from shoal.models.plan import WorkloadPlan
from shoal.testing.conformance import Harness, RuntimeConformance


@pytest.fixture
def conformance() -> Harness:
    world = ScriptedWorld()
    plan = WorkloadPlan(id="", runtime="memory", created_at=datetime.now(UTC), command=["true"], image="host")
    return Harness(make=lambda: ScriptedRuntime(world), plan=plan)


class TestMemoryRuntime(RuntimeConformance):
    pass
