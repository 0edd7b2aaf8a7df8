"""Which configurations are accepted, and what the others are told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.lifecycle import empty_lifecycle, register

from shoal.config.loader import Loaded
from shoal.config.settings import Section, Settings
from shoal.errors import ConfigError
from shoal.models.secret import Secret
from shoal.plugin import PluginContext
from shoal.plugin.components import Components
from shoal.plugin.manager import PluginManager
from shoal_gateway.config import GatewaySettings, ModeSettings, RouteSettings, SecureAccessSettings, SigningKeySettings
from shoal_gateway.setup import ACTIVE_KEY_VARIABLE, KEYS_VARIABLE, Gateway, assemble
from shoal_gateway.signing import SigningKey

LOCAL: dict[str, Any] = {"server": {"host": "127.0.0.1"}, "runtime": {"type": "local"}}


def gateway(address: str = "gw.example.com", mode: str = "header", **more: Any) -> dict[str, Any]:
    return {"mode": "gateway", "gateway": {"address": address, "route": {"mode": mode}}, **more}


def keys(*pairs: tuple[str, str], active: str | None = "a") -> dict[str, Any]:
    found = [{"key_id": key_id, "key": key} for key_id, key in pairs]
    return {"keys": found} if active is None else {"active_key": active, "keys": found}


def components(ingress: Mapping[str, Any]) -> Components:
    return PluginManager(Loaded(raw={**LOCAL, "ingress": dict(ingress)})).register(empty_lifecycle())


def refusal(ingress: Mapping[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        components(ingress)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _no_keys_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    monkeypatch.delenv(ACTIVE_KEY_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("address", "mode"),
    [
        ("*.sandboxes.example.com", "wildcard"),
        ("*.example.com:8443", "wildcard"),
        ("gw.example.com", "header"),
        ("gw.example.com:28888", "header"),
        ("10.1.2.3:28888", "header"),
        ("gw.example.com/sandboxes", "uri"),
        (" gw.example.com:80/ ", "uri"),
    ],
)
def test_addresses_that_fit_their_mode(address: str, mode: str) -> None:
    assert [ingress.name for ingress in components(gateway(address, mode)).ingresses] == ["server-proxy", "gateway"]


@pytest.mark.parametrize(
    ("address", "mode", "why"),
    [
        ("sandboxes.example.com", "wildcard", "wildcard, address must be"),
        ("*.", "wildcard", "wildcard, address must be"),
        ("*.*.example.com", "wildcard", "wildcard, address must be"),
        ("https://*.example.com", "wildcard", "no scheme"),
        ("http://gw.example.com", "header", "no scheme"),
        ("*.example.com", "header", "header, address must be"),
        ("gw.example.com/path", "header", "header, address must be"),
        ("", "header", "header, address must be"),
        ("  ", "uri", "uri, address must be"),
        ("*.example.com", "uri", "uri, address must be"),
    ],
)
def test_addresses_that_do_not(address: str, mode: str, why: str) -> None:
    assert why in refusal(gateway(address, mode))


def test_direct_mode_registers_nothing_of_it() -> None:
    found = components({})
    assert [ingress.name for ingress in found.ingresses] == ["server-proxy", "direct"]
    assert found.networking == []


def test_gateway_mode_needs_the_gateway() -> None:
    told = refusal({"mode": "gateway"})
    assert "ingress.gateway.address: required" in told
    assert "ingress.gateway.route.mode: required" in told


def test_what_belongs_to_the_gateway_needs_gateway_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    table = gateway()
    del table["mode"]
    assert "[ingress.gateway]: needs ingress.mode" in refusal(table)
    assert "[ingress.secure_access]: needs ingress.mode" in refusal({"secure_access": keys(("a", "aGVsbG8="))})
    monkeypatch.setenv(KEYS_VARIABLE, "a=aGVsbG8=")
    assert f"{KEYS_VARIABLE}: needs ingress.mode" in refusal({})


def test_docker_has_no_gateway() -> None:
    raw = {**LOCAL, "runtime": {"type": "docker", "execd_image": "execd"}, "ingress": gateway()}
    with pytest.raises(ConfigError, match=r'ingress\.mode: must be "direct" with runtime\.type'):
        register(PluginManager(Loaded(raw=raw)))


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (keys(("a", "aGVsbG8"), ("a", "d29ybGQ")), "two keys have the same key_id"),
        (keys(("b", "aGVsbG8")), "active_key names none"),
        (keys(("a", "aGVsbG8"), active=None), "active_key is required"),
        (keys(("A", "aGVsbG8"), active=None), "key_id"),
        (keys(("ab", "aGVsbG8"), active=None), "key_id"),
        (keys(("a", "!!!"), active="a"), "not base64"),
        (keys(("a", ""), active="a"), "empty"),
    ],
)
def test_keys_that_cannot_be(table: dict[str, Any], why: str) -> None:
    told = refusal(gateway(secure_access=table))
    assert why in told
    assert "aGVsbG8" not in told


def assembled(environ: Mapping[str, str], access: SecureAccessSettings | None = None) -> Gateway | None:
    sections: dict[type, Section] = {
        ModeSettings: ModeSettings(mode="gateway"),
        GatewaySettings: GatewaySettings(address="gw.example.com", route=RouteSettings(mode="uri")),
        SecureAccessSettings: access or SecureAccessSettings(),
    }
    return assemble(PluginContext(Settings(), sections, empty_lifecycle()), environ)


def test_the_environment_replaces_the_keys_of_the_file() -> None:
    configured = SecureAccessSettings(active_key="a", keys=[SigningKeySettings(key_id="a", key=Secret("aGVsbG8"))])
    environ = {KEYS_VARIABLE: "b=d29ybGQ=, c=YWdhaW4", ACTIVE_KEY_VARIABLE: "c"}
    for given, key in [({}, SigningKey("a", b"hello")), (environ, SigningKey("c", b"again"))]:
        found = assembled(given, configured)
        assert found is not None
        assert found.key == key


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({KEYS_VARIABLE: "a=aGVsbG8"}, "must be set together"),
        ({ACTIVE_KEY_VARIABLE: "a"}, "must be set together"),
        ({KEYS_VARIABLE: "a=aGVsbG8", ACTIVE_KEY_VARIABLE: "b"}, "active_key names none"),
        ({KEYS_VARIABLE: "aGVsbG8", ACTIVE_KEY_VARIABLE: "a"}, "expected id=base64"),
        ({KEYS_VARIABLE: "A=aGVsbG8", ACTIVE_KEY_VARIABLE: "A"}, "expected id=base64"),
        ({KEYS_VARIABLE: "a=aGVsbG8,a=d29ybGQ", ACTIVE_KEY_VARIABLE: "a"}, "same key_id"),
        ({KEYS_VARIABLE: "a=!aGVsbG8", ACTIVE_KEY_VARIABLE: "a"}, "not base64"),
    ],
)
def test_an_environment_that_cannot_be(environ: Mapping[str, str], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        assembled(environ)
    assert "aGVsbG8" not in str(caught.value)


@pytest.mark.parametrize(("key", "warned"), [("b3RoZXI=", False), ("b3RoZXI", True), ("b3RoZXIx", False)])
def test_a_key_without_its_padding_is_a_warning(key: str, warned: bool) -> None:
    found = components(gateway(secure_access=keys(("a", key)))).ingresses
    (ingress,) = (one for one in found if one.name == "gateway")
    with capture_logs() as logged:
        ingress.check_config()
    assert [entry["key_id"] for entry in logged] == (["a"] if warned else [])
    assert key not in str(logged)
