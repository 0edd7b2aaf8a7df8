"""From a plan with a policy to a plan with a sidecar, and what is refused (docs/wire/docker.md section 8)."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shoal.errors import InvalidRequest
from shoal.models.plan import NetworkPlan, Probe, SecretFile, Sidecar, WorkloadPlan
from shoal.models.requests import HostVolume, NetworkPolicy, NetworkRule
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import PolicyTarget
from shoal_egress.config import EgressSettings
from shoal_egress.plugin import TOKEN_LABEL, EgressPolicy

POLICY = NetworkPolicy(default_action="deny", egress=[NetworkRule(action="allow", target="*.example.com")])
PREFIX = "OPENSANDBOX_EGRESS_"


def settings(**changes: Any) -> EgressSettings:
    return msgspec.convert({"image": "egress:1", **changes}, EgressSettings, dec_hook=_secret)


def _secret(kind: type, value: Any) -> Any:
    return kind(value)


def plan(policy: NetworkPolicy | None = POLICY, **changes: Any) -> WorkloadPlan:
    fields: dict[str, Any] = {"network": NetworkPlan(policy=policy), "labels": {TOKEN_LABEL: "t0ken"}, **changes}
    base = WorkloadPlan(id="0b1c", runtime="any", created_at=datetime(2026, 1, 1, tzinfo=UTC), command=["sleep"])
    return replace(base, **fields)


async def amended(given: WorkloadPlan, **changes: Any) -> WorkloadPlan:
    return await EgressPolicy(settings(**changes)).amend(given)


async def sidecar_of(given: WorkloadPlan, **changes: Any) -> Sidecar:
    return (await amended(given, **changes)).sidecars[0]


async def refusal(given: WorkloadPlan, **changes: Any) -> str:
    with pytest.raises(InvalidRequest) as error:
        await amended(given, **changes)
    assert error.value.code == "SANDBOX::INVALID_PARAMETER"
    return error.value.message


async def test_the_sidecar_is_the_contracts() -> None:
    assert await sidecar_of(plan()) == Sidecar(
        name="egress",
        image="egress:1",
        env={
            f"{PREFIX}RULES": '{"defaultAction":"deny","egress":[{"action":"allow","target":"*.example.com"}]}',
            f"{PREFIX}MODE": "dns",
            f"{PREFIX}SANDBOX_ID": "0b1c",
            f"{PREFIX}TOKEN": "t0ken",
            f"{PREFIX}POLICY_FILE": "/tmp/opensandbox-egress-policy.json",
        },
        ports=[18080],
        capabilities=["NET_ADMIN"],
        trusted=True,
        first=True,
        ready=Probe(port=18080, path="/healthz", headers={"OPENSANDBOX-EGRESS-AUTH": "t0ken"}, timeout_seconds=30.0),
        sysctls={
            "net.ipv6.conf.all.disable_ipv6": "1",
            "net.ipv6.conf.default.disable_ipv6": "1",
            "net.ipv6.conf.lo.disable_ipv6": "1",
        },
        shares_runtime_dir=True,
        labels={"opensandbox.io/egress-sidecar-for": "0b1c"},
    )


async def test_the_sandbox_loses_the_capability_and_keeps_what_is_its_own() -> None:
    db = Sidecar(name="db", image="d")
    given = plan(env={"HOME": "/root", "GONE": None}, drop_capabilities=["NET_RAW"], sidecars=[db])
    result = await amended(given)
    assert result.drop_capabilities == ["NET_RAW", "NET_ADMIN"]
    assert result.env == {"HOME": "/root", "GONE": None}
    assert result.sidecars[1:] == [db]
    assert result.network.policy == POLICY


async def test_without_a_policy_nothing_changes() -> None:
    given = plan(policy=None, env={"HOME": "/"})
    assert await amended(given) is given


async def test_the_token_is_made_once() -> None:
    fresh = plan(labels={})
    first, second = await amended(fresh), await amended(fresh)
    tokens = {each.labels[TOKEN_LABEL] for each in (first, second)}
    assert len(tokens) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", token) for token in tokens)
    assert await amended(first) == first
    assert first.labels[TOKEN_LABEL] == first.sidecars[0].env[f"{PREFIX}TOKEN"]
    assert first.labels[TOKEN_LABEL] not in repr(first) + repr(first.sidecars)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (NetworkPolicy(), {"egress": []}),
        (NetworkPolicy(default_action="allow"), {"defaultAction": "allow", "egress": []}),
        (
            NetworkPolicy(egress=[NetworkRule(action="Deny", target="y")]),
            {"egress": [{"action": "Deny", "target": "y"}]},
        ),
    ],
)
async def test_rules_leave_nulls_out_and_keep_an_empty_list(policy: NetworkPolicy, text: dict[str, Any]) -> None:
    assert json.loads((await sidecar_of(plan(policy))).env[f"{PREFIX}RULES"]) == text


async def test_variables_for_the_sidecar_leave_the_sandbox_save_one() -> None:
    env = {
        "A": "1",
        f"{PREFIX}LOG_LEVEL": "debug",
        f"{PREFIX}DENY_WEBHOOK": None,
        f"{PREFIX}MITMPROXY_TRANSPARENT": "1",
    }
    result = await amended(plan(env=env))
    assert result.env == {"A": "1", f"{PREFIX}MITMPROXY_TRANSPARENT": "1"}
    told = result.sidecars[0].env
    assert told[f"{PREFIX}LOG_LEVEL"] == "debug"
    assert told[f"{PREFIX}DENY_WEBHOOK"] == ""
    assert told[f"{PREFIX}MITMPROXY_TRANSPARENT"] == "1"


@pytest.mark.parametrize("name", ["TOKEN", "RULES", "MODE", "SANDBOX_ID", "UPSTREAM_PROXY", "ANYTHING", ""])
async def test_other_variables_of_the_sidecar_are_the_servers(name: str) -> None:
    assert PREFIX + name in await refusal(plan(env={PREFIX + name: "x"}))


async def test_a_credential_proxy_overrides_what_the_caller_says() -> None:
    given = plan(env={f"{PREFIX}MITMPROXY_TRANSPARENT": "false"}, credential_proxy=True)
    result = await amended(given, mode="dns+nft")
    assert result.env == {f"{PREFIX}MITMPROXY_TRANSPARENT": "true"}
    assert result.sidecars[0].env[f"{PREFIX}MITMPROXY_TRANSPARENT"] == "true"
    assert result.sidecars[0].env[f"{PREFIX}MODE"] == "dns+nft"


async def test_what_the_operator_configures() -> None:
    proxy = {"url": "http://p:3128", "authorization": "Basic eA==", "ca_cert_path": "/etc/ca.pem"}
    sidecar = await sidecar_of(
        plan(credential_proxy=True),
        mode="dns+nft",
        disable_ipv6=False,
        readiness_timeout_seconds=5.0,
        otlp_endpoint="http://c:4318",
        requests={"cpu": "50m"},
        limits={"cpu": "1"},
        upstream_proxy=proxy,
    )
    assert list(sidecar.env)[2:6] == [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        f"{PREFIX}UPSTREAM_PROXY",
        f"{PREFIX}UPSTREAM_PROXY_AUTH",
        f"{PREFIX}MITMPROXY_UPSTREAM_EXTRA_CA",
    ]
    assert sidecar.env[f"{PREFIX}UPSTREAM_PROXY_AUTH"] == "Basic eA=="
    path = "/etc/ssl/certs/opensandbox-upstream-extra-ca.pem"
    assert sidecar.env[f"{PREFIX}MITMPROXY_UPSTREAM_EXTRA_CA"] == path
    [volume] = sidecar.volumes
    assert (volume.mount_path, volume.read_only, volume.host) == (path, True, HostVolume(path="/etc/ca.pem"))
    assert sidecar.sysctls == {}
    assert (sidecar.resource_requests, sidecar.resource_limits) == ({"cpu": "50m"}, {"cpu": "1"})
    assert sidecar.ready is not None
    assert sidecar.ready.timeout_seconds == 5.0


async def test_a_ca_bundle_in_a_secret_of_the_engine() -> None:
    proxy = {"url": "http://p:3128", "ca_secret_name": "upstream-ca"}
    sidecar = await sidecar_of(plan(credential_proxy=True), mode="dns+nft", upstream_proxy=proxy)
    path = "/etc/ssl/certs/opensandbox-upstream-extra-ca.pem"
    assert sidecar.secret_files == [SecretFile(secret="upstream-ca", key="ca.crt", path=path)]
    assert sidecar.volumes == []


async def test_what_cannot_be_kept_is_refused() -> None:
    insecure, transparent = f"{PREFIX}MITMPROXY_SSL_INSECURE", f"{PREFIX}MITMPROXY_TRANSPARENT"
    upstream = {"mode": "dns+nft", "upstream_proxy": {"url": "http://p:3128"}}
    assert "egress.image" in await refusal(plan(), image=None)
    assert "host" in await refusal(plan(network=NetworkPlan(mode="host", policy=POLICY)))
    assert "dns+nft" in await refusal(plan(credential_proxy=True))
    assert insecure in await refusal(plan(credential_proxy=True, env={insecure: "0"}), mode="dns+nft")
    assert "credentialProxy" in await refusal(plan(), **upstream)
    assert "credentialProxy" in await refusal(plan(env={transparent: "0"}), **upstream)
    assert insecure in await refusal(plan(env={transparent: "1", insecure: " YES "}), **upstream)
    allowed = await sidecar_of(plan(env={transparent: " On ", insecure: "0"}), **upstream)
    assert allowed.env[insecure] == "0"


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (NetworkPolicy(egress=[NetworkRule(action="permit", target="a.example")]), "egress[0].action"),
        (NetworkPolicy(egress=[*POLICY.egress, NetworkRule(action="allow", target=" ")]), "egress[1].target"),
        (NetworkPolicy(default_action="drop"), "defaultAction"),
    ],
)
async def test_rules_that_the_sidecar_would_not_start_with_are_refused(policy: NetworkPolicy, field: str) -> None:
    assert f"networkPolicy.{field}" in await refusal(plan(policy))


async def test_an_action_in_any_case_or_left_blank_is_fine() -> None:
    rules = [NetworkRule(action=action, target="a.example") for action in (" ALLOW", "Deny", "")]
    assert (await amended(plan(NetworkPolicy(default_action="Allow", egress=rules)))).warnings == []


async def test_addresses_that_only_names_are_filtered_for_are_warned_of() -> None:
    rules = [NetworkRule(action="deny", target=target) for target in ("a.example", "10.0.0.0/8", "::1")]
    given = plan(NetworkPolicy(egress=rules))
    [told] = (await amended(given)).warnings
    assert "10.0.0.0/8, ::1" in told
    assert (await amended(given, mode="dns+nft")).warnings == []


async def test_a_request_may_say_where_run_time_rules_are_kept() -> None:
    kept = await sidecar_of(plan(env={f"{PREFIX}POLICY_FILE": "/data/p"}))
    assert kept.env[f"{PREFIX}POLICY_FILE"] == "/data/p"


async def test_a_bridge_that_the_plan_names_is_fine() -> None:
    assert (await amended(plan(network=NetworkPlan(mode="bridge", policy=POLICY)))).sidecars != []


def test_only_the_sidecars_port_of_a_workload_that_has_one_needs_the_token() -> None:
    concern = EgressPolicy(settings())
    plain = Workload(id="a", phase=Phase.RUNNING)
    guarded = Workload(id="b", phase=Phase.RUNNING, labels={TOKEN_LABEL: "t0ken"})
    assert concern.headers(guarded, 18080) == {"OPENSANDBOX-EGRESS-AUTH": "t0ken"}
    assert concern.headers(guarded, 8080) == {}
    assert concern.headers(plain, 18080) == {}
    assert concern.policy(plain) is None
    target = concern.policy(guarded)
    assert target == PolicyTarget(18080, "/policy", {"OPENSANDBOX-EGRESS-AUTH": "t0ken"})
    assert "t0ken" not in repr(target)
