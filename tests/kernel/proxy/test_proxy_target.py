"""The path of a proxied request is taken apart without being decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest, ValidationFailed
from shoal.plugin.interfaces import HostTarget
from shoal.proxy import ProxyTarget, parse_target
from shoal.proxy.target import host_target

PATH_BYTES = st.text(alphabet=[chr(c) for c in range(0x21, 0x7F) if chr(c) not in "?#"]).map(str.encode)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (b"/sandboxes/x/proxy/80", ProxyTarget("x", 80, b"", b"/sandboxes/x/proxy/80", b"/")),
        (b"/sandboxes/x/proxy/80/", ProxyTarget("x", 80, b"", b"/sandboxes/x/proxy/80", b"/")),
        (b"/v1/sandboxes/x/proxy/80//a%2Fb", ProxyTarget("x", 80, b"/v1", b"/sandboxes/x/proxy/80", b"//a%2Fb")),
        (b"/sandboxes/a%2520b/proxy/1/", ProxyTarget("a%20b", 1, b"", b"/sandboxes/a%2520b/proxy/1", b"/")),
        (b"/sandboxes/%FF/proxy/65535", ProxyTarget("\ufffd", 65535, b"", b"/sandboxes/%FF/proxy/65535", b"/")),
    ],
)
def test_parts(raw: bytes, target: ProxyTarget) -> None:
    assert parse_target(raw) == target


@pytest.mark.parametrize(
    "raw",
    [
        b"/",
        b"/sandboxes/x",
        b"/sandboxes/x/proxy",
        b"/sandboxes/x/proxy/",
        b"/sandboxes//proxy/80",
        b"/v2/sandboxes/x/proxy/80",
        b"/v1/v1/sandboxes/x/proxy/80",
        b"//sandboxes/x/proxy/80",
        b"/sandboxes/x/y/proxy/80",
        b"/sandboxes/x%2Fproxy/80",
    ],
)
def test_other_paths_are_not_the_proxys(raw: bytes) -> None:
    assert parse_target(raw) is None


@pytest.mark.parametrize("port", [b"http", b"80x", b"8 0", b"0x50", b"80.0", b"%38%30", b"--1"])
def test_a_port_that_is_no_integer(port: bytes) -> None:
    with pytest.raises(ValidationFailed) as caught:
        parse_target(b"/sandboxes/x/proxy/" + port)
    assert caught.value.problems[0].loc == ["path", "port"]
    assert port.decode() not in caught.value.message


@pytest.mark.parametrize("port", [b"0", b"65536", b"-1", b"9" * 5000])
def test_a_port_out_of_range(port: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_target(b"/sandboxes/x/proxy/" + port + b"/")
    assert caught.value.code == "DOCKER::INVALID_PORT"


@given(rest=PATH_BYTES, mount=st.sampled_from([b"", b"/v1"]), port=st.integers(1, 65535))
def test_what_follows_the_port_is_untouched(rest: bytes, mount: bytes, port: int) -> None:
    route = b"/sandboxes/an-id/proxy/%d" % port
    assert parse_target(mount + route + b"/" + rest) == ProxyTarget("an-id", port, mount, route, b"/" + rest)


def test_where_the_host_names_the_port_the_whole_path_travels() -> None:
    host = HostTarget("x", 80, signed=True)
    assert host_target(host, b"/sandboxes/y/proxy/1//a%2Fb") == ProxyTarget(
        "x", 80, b"", b"", b"/sandboxes/y/proxy/1//a%2Fb", host
    )


@pytest.mark.parametrize("raw", [b"*", b"", b"http://elsewhere/"])
def test_what_is_no_path_is_refused_there(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        host_target(HostTarget("x", 80), raw)
