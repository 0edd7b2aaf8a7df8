"""What clients are told without a gateway."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import pytest

import shoal_direct.hooks
from shoal.config.settings import Settings
from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.plugin import Lifecycle, PluginContext
from shoal.plugin.interfaces import Endpoint, EndpointQuery
from shoal_direct.config import IngressSettings
from shoal_direct.ingresses import DirectIngress, ServerProxyIngress, without_scheme

ID = "2f0e6a52-5d5e-4c53-9a3b-1f6a8f1c0d11"


def query(workload: Workload | None = None, **changes: Any) -> EndpointQuery:
    now = datetime.now(UTC)
    record = SandboxRecord(
        id=ID, runtime="local", state=State.RUNNING, since=now, created_at=now, entrypoint=["sleep", "60"]
    )
    given: dict[str, Any] = {
        "port": 8080,
        "base": "api.example.com:8443/v1",
        "internal_address": "127.0.0.1:9999",
    } | changes
    return EndpointQuery(record=record, workload=workload or workload_with(host="10.1.2.3"), **given)


def workload_with(**address: Any) -> Workload:
    return Workload(id=ID, phase=Phase.RUNNING, **address)


@pytest.mark.parametrize(
    ("workload", "expected"),
    [
        (workload_with(host="10.1.2.3"), "10.1.2.3:8080"),
        (workload_with(host="fd00::7"), "[fd00::7]:8080"),
        (workload_with(host="10.1.2.3", public_host="example.com"), "example.com:8080"),
        (workload_with(host="10.1.2.3", ports={8080: "127.0.0.1:40001"}), "127.0.0.1:40001"),
        (workload_with(ports={8080: "127.0.0.1:40001"}, public_ports={8080: "h:50001"}), "h:50001"),
    ],
)
def test_direct_is_the_address_for_clients(workload: Workload, expected: str) -> None:
    assert DirectIngress().endpoint(query(workload)) == Endpoint(endpoint=expected)


def test_direct_has_no_answer_without_an_address() -> None:
    assert DirectIngress().endpoint(query(workload_with(ports={44772: "127.0.0.1:40001"}))) is None


@pytest.mark.parametrize(
    ("eip", "expected"),
    [
        (None, f"api.example.com:8443/v1/sandboxes/{ID}/proxy/8080"),
        ("https://out.example/a/", f"out.example/a/sandboxes/{ID}/proxy/8080"),
    ],
)
def test_without_an_address_direct_is_the_proxy(eip: str | None, expected: str) -> None:
    tunnelled = query(workload_with(tunnelled=True), internal_address=None)
    assert DirectIngress(eip).endpoint(tunnelled) == Endpoint(endpoint=expected)


def test_nothing_here_signs() -> None:
    assert not any(ingress.signs for ingress in (DirectIngress(), ServerProxyIngress(None)))


def test_the_server_proxy_waits_for_an_address_only_when_it_was_asked_for() -> None:
    assert ServerProxyIngress(None).needs_address(query(use_server_proxy=True))
    assert not ServerProxyIngress(None).needs_address(query())


def test_an_endpoint_without_headers_has_one_field_on_the_wire() -> None:
    assert msgspec.json.encode(DirectIngress().endpoint(query())) == b'{"endpoint":"10.1.2.3:8080"}'


def test_the_server_proxy_answers_only_when_asked() -> None:
    assert ServerProxyIngress("example.com").endpoint(query()) is None


@pytest.mark.parametrize(
    ("eip", "base"),
    [
        (None, "api.example.com:8443/v1"),
        ("", "api.example.com:8443/v1"),
        ("   ", "api.example.com:8443/v1"),
        ("203.0.113.7", "203.0.113.7"),
        (" https://sandboxes.example.com/ ", "sandboxes.example.com"),
        ("HTTP://sandboxes.example.com:8080", "sandboxes.example.com:8080"),
        ("https://example.com/shoal/v1/", "example.com/shoal/v1"),
    ],
)
def test_the_server_proxy_is_reached_at_eip_or_at_the_requests_host(eip: str | None, base: str) -> None:
    endpoint = ServerProxyIngress(eip).endpoint(query(use_server_proxy=True))
    assert endpoint == Endpoint(endpoint=f"{base}/sandboxes/{ID}/proxy/8080")


def test_only_a_leading_scheme_is_removed() -> None:
    assert without_scheme("example.com/http://x") == "example.com/http://x"


def registered(mode: IngressSettings) -> list[str]:
    """Names of what the hook hands over, as the kernel orders it; the engine is never asked."""
    context = PluginContext(Settings(), {IngressSettings: mode}, cast("Lifecycle", object()))
    ingresses = shoal_direct.hooks.shoal_register_ingresses(context)
    return [ingress.name for ingress in sorted(ingresses, key=lambda one: -one.priority)]


def test_the_proxy_is_asked_before_the_direct_address() -> None:
    assert registered(IngressSettings()) == ["server-proxy", "direct"]


def test_a_gateway_leaves_only_the_proxy() -> None:
    assert registered(IngressSettings(mode="gateway")) == ["server-proxy"]


def test_the_section() -> None:
    (section,) = shoal_direct.hooks.shoal_config_sections()
    assert section.name == "ingress"
    assert msgspec.convert({}, section.kind) == IngressSettings(mode="direct")
    with pytest.raises(msgspec.ValidationError, match=r"mode"):
        msgspec.convert({"mode": "tunnel"}, section.kind)


def test_it_is_always_wanted() -> None:
    assert shoal_direct.hooks.shoal_wanted()
