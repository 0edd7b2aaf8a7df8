"""How the plugin presents itself to the kernel."""

from __future__ import annotations

import platform
from pathlib import Path

import msgspec
import pytest
from tests.local_runtime.machine import local, plan, settings

from shoal.errors import Unavailable
from shoal_local import hooks
from shoal_local.config import LocalSettings
from shoal_local.describe import masked
from shoal_local.runtime import LocalRuntime


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, True),
        ({"runtime": {}}, True),
        ({"runtime": {"type": "local"}}, True),
        ({"runtime": {"type": "docker"}}, False),
    ],
)
def test_wanted_unless_another_runtime_is_named(config: dict[str, object], wanted: bool) -> None:
    assert hooks.shoal_wanted(config) is wanted


def test_section() -> None:
    (section,) = hooks.shoal_config_sections()
    assert (section.name, section.kind) == ("local", LocalSettings)
    for bad in ({"uid": 0}, {"isolation": "chroot"}, {"unknown": 1}, {"log_max_bytes": 0}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, LocalSettings)


def test_capabilities(tmp_path: Path) -> None:
    capabilities = LocalRuntime(settings(tmp_path), local()).capabilities
    assert capabilities.pause
    assert capabilities.volumes == {"host"}
    assert not capabilities.image_auth
    assert capabilities.snapshots
    if platform.machine() == "x86_64":
        assert capabilities.platforms == {"linux/amd64"}


async def test_before_start_it_says_so(tmp_path: Path) -> None:
    runtime = LocalRuntime(settings(tmp_path), local())
    with pytest.raises(Unavailable):
        await runtime.check(plan("true"))
    with pytest.raises(Unavailable):
        await runtime.list()
    await runtime.stop()


def test_values_are_masked_unless_known_to_be_harmless() -> None:
    assert masked({"PATH": "/bin", "OPENSANDBOX_ID": "1", "DATABASE": "postgres://u:p@h"}) == {
        "PATH": "/bin",
        "OPENSANDBOX_ID": "1",
        "DATABASE": "***",
    }
