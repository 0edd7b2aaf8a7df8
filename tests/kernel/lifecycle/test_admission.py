"""Admission: what a create asks of the network beside its sandbox, and what becomes of it in the plan."""

from __future__ import annotations

from typing import ClassVar

import pytest
from msgspec.structs import replace
from tests.kernel.lifecycle.fakes import MemoryRuntime, Server, World, request

from shoal.errors import InvalidRequest
from shoal.lifecycle import admission
from shoal.lifecycle.hosts import Host, Hosts
from shoal.lifecycle.networks import Networks
from shoal.models.create import SandboxSpec, parse_create
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal.models.requests import CredentialProxy, ImageAuth, ImageSpec, NetworkPolicy, SidecarSpec
from shoal.models.secret import Secret
from shoal.plugin.components import Components
from shoal.plugin.interfaces import Capabilities, Networking

PRIVATE = SidecarSpec(name="private", image=ImageSpec(uri="x", auth=ImageAuth(username="u", password=Secret("p"))))
DB = SidecarSpec(name="db", image=ImageSpec(uri=" postgres:17 "), env={"A": "1"}, ports=[5432])


class Guard(Networking):
    """Keeps policies, by a sidecar on port 18080."""

    name: ClassVar[str] = "guard"
    keeps_policies = True

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        return replace(plan, sidecars=[Sidecar(name="guard", image="g", ports=[18080]), *plan.sidecars])


class Indifferent(Networking):
    """Has nothing to do with policies."""

    name: ClassVar[str] = "indifferent"


def spec(**changes: object) -> SandboxSpec:
    return parse_create(request(**changes))


async def amend(plan: WorkloadPlan, *networking: Networking) -> WorkloadPlan:
    return await Networks(Components(runtimes={}, default_runtime="", networking=list(networking))).amend(plan)


def host(**capabilities: bool) -> Host:
    runtime = MemoryRuntime(World())
    runtime.capabilities = Capabilities(**capabilities)  # type: ignore[arg-type]  # flags alone
    return Hosts({"memory": runtime}, "memory", None).pick({})


@pytest.mark.parametrize(
    ("changes", "capabilities", "field"),
    [
        ({"sidecars": [DB]}, {}, "sidecars"),
        ({"sidecars": []}, {}, None),
        ({"sidecars": [DB]}, {"sidecars": True}, None),
        ({"network_policy": NetworkPolicy()}, {}, "networkPolicy"),
        ({"credential_proxy": CredentialProxy(enabled=True)}, {}, "credentialProxy"),
        ({"credential_proxy": CredentialProxy(enabled=False)}, {}, None),
        ({"sidecars": [DB, PRIVATE]}, {"sidecars": True}, "sidecars[1].image.auth"),
    ],
)
def test_what_a_runtime_does_not_declare_is_refused(
    changes: dict[str, object], capabilities: dict[str, bool], field: str | None
) -> None:
    if field is None:
        admission.refuse_unsupported(spec(**changes), host(**capabilities))
        return
    with pytest.raises(InvalidRequest) as refusal:
        admission.refuse_unsupported(spec(**changes), host(**capabilities))
    assert refusal.value.code == "SANDBOX::INVALID_PARAMETER"
    assert refusal.value.message.startswith(f"{field} is not supported")


def test_a_sidecar_of_a_request_is_not_trusted() -> None:
    [drawn] = admission.draw_up(spec(sidecars=[DB]), host(), None).sidecars
    assert drawn == Sidecar(name="db", image="postgres:17", env={"A": "1"}, ports=[5432])
    assert (drawn.trusted, drawn.first, drawn.shares_runtime_dir) == (False, False, False)


def test_what_speaks_to_an_egress_sidecar_counts_only_with_a_policy() -> None:
    env = {"OPENSANDBOX_EGRESS_MITMPROXY_TRANSPARENT": "true", "HOME": "/", "GONE": None}
    without = admission.draw_up(spec(env=env), host(), None)
    assert without.env == {"HOME": "/", "GONE": None}
    with_policy = admission.draw_up(spec(env=env, network_policy=NetworkPolicy()), host(), None)
    assert with_policy.env == env


async def test_a_policy_that_nobody_keeps_is_refused() -> None:
    plan = admission.draw_up(spec(network_policy=NetworkPolicy()), host(), None)
    with pytest.raises(InvalidRequest) as refusal:
        await amend(plan, Indifferent())
    assert refusal.value.code == "SANDBOX::INVALID_PARAMETER"
    kept = await amend(plan, Indifferent(), Guard())
    assert [sidecar.name for sidecar in kept.sidecars] == ["guard"]


@pytest.mark.parametrize("clash", [replace(DB, name="guard"), replace(DB, ports=[1, 18080])])
async def test_a_callers_sidecar_that_is_in_a_plugins_way_is_refused(clash: SidecarSpec) -> None:
    plan = admission.draw_up(spec(sidecars=[clash]), host(), None)
    with pytest.raises(InvalidRequest):
        await amend(plan, Guard())
    allowed = await amend(admission.draw_up(spec(sidecars=[DB]), host(), None), Guard())
    assert [sidecar.name for sidecar in allowed.sidecars] == ["guard", "db"]


async def test_a_refused_create_leaves_nothing() -> None:
    async with Server() as server:
        with pytest.raises(InvalidRequest):
            await server.lifecycle.sandboxes.create(request(sidecars=[DB]))
        assert list(server.lifecycle.records()) == []
        assert server.disk.records == {}
