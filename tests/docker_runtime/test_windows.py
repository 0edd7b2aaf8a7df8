"""Windows sandboxes: the sizes of the guest, its ports and its devices."""

from __future__ import annotations

import pytest
from tests.docker_runtime.plans import plan

from shoal.errors import InvalidRequest
from shoal.models.requests import PlatformSpec
from shoal_docker import windows

WINDOWS = PlatformSpec(os="windows", arch="amd64")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpu": "2500m", "memory": "5000Mi", "disk": "70G"}, {"CPU_CORES": "3", "RAM_SIZE": "5G", "DISK_SIZE": "70G"}),
        ({"cpu": "2", "memory": "4Gi"}, {"CPU_CORES": "2", "RAM_SIZE": "4G"}),
        ({"memory": "4G"}, {"RAM_SIZE": "4G"}),
        ({"memory": "6000M"}, {"RAM_SIZE": "6G"}),
        ({"memory": "4294967297"}, {"RAM_SIZE": "5G"}),
        ({"disk": "64Gi"}, {"DISK_SIZE": "64G"}),
        ({"storage": "80G"}, {"DISK_SIZE": "80G"}),
        ({"ephemeral-storage": "81G"}, {"DISK_SIZE": "81G"}),
        ({"disk": "65G", "storage": "90G"}, {"DISK_SIZE": "65G"}),
        ({"gpu": "1"}, {}),
    ],
)
def test_sizes(asked: dict[str, str], said: dict[str, str]) -> None:
    assert windows.sizes(asked) == said


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("cpu", "1"),
        ("cpu", "1999m"),
        ("cpu", "x"),
        ("memory", "3G"),
        ("memory", "3999M"),
        ("memory", "4095Mi"),
        ("memory", "4.5G"),
        ("disk", "64"),
        ("disk", "63Gi"),
        ("storage", "100x"),
    ],
)
def test_too_small(key: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        windows.check(plan(platform=WINDOWS, resource_limits={key: text}), exists=lambda _: True)
    assert caught.value.code == "SANDBOX::INVALID_PARAMETER"
    assert f"resourceLimits.{key}" in caught.value.message


def test_a_machine_without_virtualisation() -> None:
    made = plan(platform=WINDOWS)
    with pytest.raises(InvalidRequest, match="/dev/kvm"):
        windows.check(made, exists=lambda path: path != "/dev/kvm")
    windows.check(made, exists=lambda _: True)
    windows.check(made, exists=None)


def test_ports_are_told_to_the_guest() -> None:
    published = ["44772/tcp", "8080/tcp", *windows.PORTS]
    found = windows.variables({"USER_PORTS": "22, 8080", "A": "1"}, {"cpu": "4"}, published)
    assert found == {"A": "1", "CPU_CORES": "4", "USER_PORTS": "22,8080,44772,3389,8006"}


def test_who_is_a_guest() -> None:
    assert windows.is_guest(plan(platform=WINDOWS))
    assert not windows.is_guest(plan(platform=PlatformSpec(os="linux", arch="amd64")))
    assert not windows.is_guest(plan())
    assert [device["PathOnHost"] for device in windows.devices()] == ["/dev/kvm", "/dev/net/tun"]
