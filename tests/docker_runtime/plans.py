"""Workload plans for tests that look at what becomes of one."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from shoal.models.plan import WorkloadPlan


def plan(**fields: Any) -> WorkloadPlan:
    """A small plan with an id of its own; ``fields`` win."""
    return WorkloadPlan(
        **{
            "id": str(uuid.uuid4()),
            "runtime": "docker",
            "created_at": datetime.now(UTC),
            "command": ["sleep", "600"],
            "image": "shoal-test/busybox:latest",
            **fields,
        }
    )
