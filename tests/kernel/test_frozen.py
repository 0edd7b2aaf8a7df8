"""Plans, workloads and records are immutable through and through, and cost nothing by it."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from msgspec.structs import fields, replace
from structlog.testing import capture_logs

from shoal.models import plan, requests, workload
from shoal.models.frozen import EMPTY_DICT, Frozen, FrozenDict, FrozenList
from shoal.models.plan import NetworkPlan, Sidecar, WorkloadPlan
from shoal.models.pools import PoolRecord
from shoal.models.requests import NetworkPolicy, NetworkRule, Volume
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Adoption, Phase, Workload
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Observer, SnapshotRecord, Transition
from shoal.testing import server_with

CONFIG = "__struct_config__"  # which msgspec's types do not declare
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = WorkloadPlan(
    id="x",
    runtime="r",
    created_at=NOW,
    command=["sleep", "1"],
    env={"A": "1", "B": None},
    volumes=[Volume(name="v", mount_path="/v")],
    network=NetworkPlan(publish=[80], policy=NetworkPolicy(egress=[NetworkRule(action="allow", target="x")])),
    sidecars=[Sidecar(name="s", image="i", env={"A": "1"}, ports=[1])],
)
RECORD = SandboxRecord(
    id="x", runtime="r", state=State.RUNNING, since=NOW, created_at=NOW, entrypoint=["a"], metadata={"a": "b"}
)
ADOPTION = Adoption(created_at=NOW, entrypoint=["a"], metadata={"a": "b"})
WORKLOAD = Workload(id="x", phase=Phase.RUNNING, ports={80: "h:1"}, headers={"A": "1"}, adoption=ADOPTION)

CHANGES: list[Callable[[], object]] = [
    lambda: PLAN.env.update(A="2"),
    lambda: PLAN.env.pop("A"),
    lambda: PLAN.env.__setitem__("A", "2"),
    lambda: PLAN.env.setdefault("C", "2"),
    lambda: PLAN.env.clear(),
    lambda: PLAN.command.append("x"),
    lambda: PLAN.command.sort(),
    lambda: PLAN.command.__setitem__(0, "x"),
    lambda: PLAN.metadata.update(a="b"),
    lambda: PLAN.warnings.append("x"),
    lambda: PLAN.network.publish.append(1),
    lambda: PLAN.sidecars[0].env.update(A="2"),
    lambda: PLAN.sidecars[0].ports.extend([1]),
    lambda: PLAN.network.policy and PLAN.network.policy.egress.pop(),
    lambda: RECORD.metadata.update(a="c"),
    lambda: RECORD.entrypoint.insert(0, "x"),
    lambda: WORKLOAD.ports.update({81: "h:2"}),
    lambda: WORKLOAD.adoption and WORKLOAD.adoption.metadata.popitem(),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_what_they_hold_cannot_be_changed(change: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="read-only"):
        change()


@pytest.mark.parametrize("struct", [PLAN, RECORD, WORKLOAD, ADOPTION, PLAN.sidecars[0], PLAN.network, PLAN.volumes[0]])
def test_their_fields_cannot_be_set(struct: msgspec.Struct) -> None:
    for field in fields(struct):
        with pytest.raises(AttributeError):
            setattr(struct, field.name, None)


def test_everything_that_they_hold_is_of_such_a_kind() -> None:
    held = [*vars(plan).values(), *vars(workload).values(), *vars(requests).values(), SandboxRecord, PoolRecord]
    structs = {kind for kind in held if isinstance(kind, type) and issubclass(kind, msgspec.Struct)}
    reached: set[type] = {WorkloadPlan, Workload, SandboxRecord, PoolRecord, SnapshotRecord}
    while True:
        inner = {
            kind for kind in structs - reached if any(kind.__name__ in str(f.type) for s in reached for f in fields(s))
        }
        if not inner:
            break
        reached |= inner
    assert {kind.__name__ for kind in reached if not getattr(kind, CONFIG).frozen} == set()


@pytest.mark.parametrize("struct", [PLAN, RECORD, WORKLOAD])
def test_they_are_the_same_in_every_other_way(struct: Any) -> None:
    encoded = msgspec.json.encode(struct)
    decoded = msgspec.json.decode(encoded, type=type(struct))
    assert decoded == struct
    assert isinstance(replace(decoded), type(struct))
    assert copy.deepcopy(struct) == struct == pickle.loads(pickle.dumps(struct))  # noqa: S301 - our own
    assert RECORD.metadata == {"a": "b"}
    assert isinstance(RECORD.metadata | {"c": "d"}, dict)
    assert [*PLAN.command, "x"] == ["sleep", "1", "x"]
    assert json.dumps(RECORD.metadata) == '{"a": "b"}'


def test_what_is_empty_is_left_out_of_json_as_before() -> None:
    bare = WorkloadPlan(id="x", runtime="r", created_at=NOW, command=["a"], metadata={}, env={}, volumes=[])
    assert json.loads(msgspec.json.encode(bare)).keys() == {"id", "runtime", "created_at", "command", "network"}
    assert bare.metadata is EMPTY_DICT


def test_what_is_nested_is_frozen_too() -> None:
    class Deep(Frozen, frozen=True):
        template: dict[str, Any]

    deep = Deep(template={"a": [{"b": {}}]})
    assert isinstance(deep.template["a"], FrozenList)
    assert isinstance(deep.template["a"][0]["b"], FrozenDict)


async def test_a_plugin_that_tries_is_named_and_changes_nothing() -> None:
    class Scribe(Observer):
        name = "scribe"

        def transition(self, event: Transition) -> None:
            event.record.metadata["owner"] = "scribe"

        @hookimpl
        def shoal_register_observers(self) -> list[Observer]:
            return [self]

    body = {
        "image": {"uri": "any"},
        "entrypoint": ["true"],
        "resourceLimits": {},
        "timeout": 60,
        "metadata": {"a": "b"},
    }
    with capture_logs() as logs:
        async with server_with(reef=Scribe()) as server, httpx.AsyncClient(base_url=server.url) as client:
            made = (await client.post("/v1/sandboxes", json=body)).json()["id"]
            seen = (await client.get(f"/v1/sandboxes/{made}?wait=Running")).json()
    assert seen["metadata"] == {"a": "b"}
    named = {entry["plugin"]: entry["error"] for entry in logs if entry["event"] == "a plugin failed to take note"}
    assert named["reef"].startswith("TypeError: this mapping is read-only")
