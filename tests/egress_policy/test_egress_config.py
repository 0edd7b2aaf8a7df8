"""``[egress]``: what is let through, what is refused, and that no value shows in a refusal."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from shoal.app import Shoal
from shoal.config.loader import Loaded
from shoal.config.sections import OwnedSection, validate
from shoal.errors import ConfigError
from shoal.plugin.interfaces import Capabilities
from shoal_egress.config import EgressSettings

URL = "http://proxy.example:3128"


def read(**table: Any) -> EgressSettings:
    section = OwnedSection("egress", EgressSettings)
    read = validate({"egress": table}, [section], {})[EgressSettings]
    assert isinstance(read, EgressSettings)
    return read


def behind(**table: Any) -> EgressSettings:
    return read(mode="dns+nft", upstream_proxy={"url": URL, **table})


def test_defaults() -> None:
    settings = read()
    assert (settings.image, settings.mode, settings.disable_ipv6) == (None, "dns", True)
    assert (settings.readiness_timeout_seconds, settings.otlp_endpoint, settings.upstream_proxy) == (30.0, None, None)


def test_numbers_and_booleans_may_be_quoted() -> None:
    settings = read(disable_ipv6="false", readiness_timeout_seconds="2.5")
    assert (settings.disable_ipv6, settings.readiness_timeout_seconds) == (False, 2.5)


def test_blanks_count_as_unset() -> None:
    assert read(otlp_endpoint="").otlp_endpoint is None
    proxy = behind(authorization=" ").upstream_proxy
    assert proxy is not None
    assert proxy.authorization is None


@pytest.mark.parametrize(
    "table",
    [
        {"image": ""},
        {"mode": "nft"},
        {"readiness_timeout_seconds": 0},
        {"otlp_endpoint": "collector:4318"},
        {"otlp_endpoint": "grpc://collector:4317"},
        {"otlp_endpoint": "http://:4318"},
        {"requests": {"cpu": "lots"}},
        {"requests": {"cpu": "-1"}},
        {"limits": {"disk space": "1Gi"}},
        {"limits": {"gpu": "1"}},
        {"limits": {"hugepages-0": "1Gi"}},
        {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000M"}},
        {"requests": {"cpu": "0.2"}, "limits": {"cpu": "100m"}},
        {"imgae": "x"},
        {"upstream_proxy": {"url": URL}},
    ],
)
def test_what_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="egress"):
        read(**table)


@pytest.mark.parametrize(
    "proxy",
    [
        {"url": "proxy.example:3128"},
        {"url": "socks5://proxy.example:1080"},
        {"url": "http://"},
        {"url": "http://user:secret-word@proxy.example"},
        {"url": "http://proxy.example:0"},
        {"url": "http://proxy.example:65536"},
        {"url": "http://proxy.example/secret-word"},
        {"url": "http://proxy.example?secret-word"},
        {"url": "http://proxy.example#secret-word"},
        {"url": "http://proxy.example\tx"},
        {"url": "http://pro xy"},
        {"authorization": "Basic secret-word\r\nX: y"},
        {"ca_cert_path": "certs/secret-word.pem"},
        {"ca_cert_path": "/certs:secret-word"},
        {"ca_secret_name": "Secret_word"},
        {"ca_secret_name": "a" * 64},
    ],
)
def test_an_upstream_proxy_that_is_refused_keeps_its_secrets(proxy: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as refusal:
        behind(**proxy)
    assert str(refusal.value).startswith("egress.upstream_proxy: ")
    assert "secret-word" not in str(refusal.value).lower()


@pytest.mark.parametrize("url", [URL, "https://[2001:db8::1]:8443", "http://proxy.example/", " http://10.0.0.1 "])
def test_an_upstream_proxy(url: str) -> None:
    proxy = behind(url=url, authorization="Basic secret-word", ca_cert_path="/etc/ca.pem").upstream_proxy
    assert proxy is not None
    assert proxy.url == url.strip()
    assert proxy.has_ca
    assert "secret-word" not in repr(proxy)


@pytest.mark.parametrize(
    ("certificates", "key", "right"),
    [
        ("path", "ca_secret_name", False),
        ("path", "ca_cert_path", True),
        ("secret", "ca_cert_path", False),
        ("secret", "ca_secret_name", True),
        (None, "ca_cert_path", True),
        (None, "ca_secret_name", True),
    ],
)
def test_the_ca_is_named_as_the_runtime_takes_it(
    certificates: Literal["path", "secret"] | None, key: str, right: bool
) -> None:
    settings = behind(**{key: "/etc/ca.pem" if key == "ca_cert_path" else "upstream-ca"})
    problem = settings.check_runtime("reef", Capabilities(certificates=certificates))
    assert (problem is None) is right
    assert problem is None or key in problem


def test_the_plugin_is_enabled_by_its_section() -> None:
    raw = {"server": {"host": "127.0.0.1"}, "runtime": {"type": "local"}, "egress": {"image": "egress:1"}}
    assert [part.component.name for part in Shoal(Loaded(raw=raw))._before].count("egress_policy") == 1
    del raw["egress"]
    assert "egress_policy" not in [part.component.name for part in Shoal(Loaded(raw=raw))._before]
