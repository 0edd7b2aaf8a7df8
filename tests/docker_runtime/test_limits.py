"""``resourceLimits`` on Docker: which spellings count, what they come to, and what the engine makes of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.docker_runtime.one_container import output, started_engine

from shoal.errors import InvalidRequest
from shoal_docker import limits

BYTES = {
    "104857600": 104857600,
    "99b": 99,
    "100m": 100_000_000,
    "100M": 100_000_000,
    "100mb": 100_000_000,
    "100Mi": 104857600,
    " 100mI ": 104857600,
    "2k": 2000,
    "2Kb": 2000,
    "2ki": 2048,
    "3G": 3 * 10**9,
    "3gi": 3 * 2**30,
    "1t": 10**12,
    "1Ti": 2**40,
    "007": 7,
}
NANO_CPUS = {
    "0.5": 500_000_000,
    " .5 ": 500_000_000,
    "500m": 500_000_000,
    "500 M": 500_000_000,
    "1e0": 10**9,
    "+1": 10**9,
    "2.": 2 * 10**9,
    "1e3m": 10**9,
    "0.5m": 500_000,
    "0.0000000019": 1,
}


@pytest.mark.parametrize(("text", "value"), BYTES.items())
def test_memory(text: str, value: int) -> None:
    assert limits.memory_bytes(text) == value


@pytest.mark.parametrize("text", ["1", "512k", "5Mi"])
def test_less_memory_than_the_engine_takes_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(InvalidRequest, match="less than the 6Mi that the engine takes"):
        limits.resources({"memory": text})


@pytest.mark.parametrize(
    "text", ["", "0", "0Mi", "100MiB", "0.5Gi", "1 Mi", "+1Mi", "-1", "1_0Mi", "1e3", "9" * 19 + "k"]
)
def test_no_memory(text: str) -> None:
    refused("memory", text)


@pytest.mark.parametrize(("text", "value"), NANO_CPUS.items())
def test_cpu(text: str, value: int) -> None:
    assert limits.resources({"cpu": text}) == {"NanoCpus": value}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "nan",
        "inf",
        "-inf",
        "0x1",
        "-1",
        "0",
        "0.0000000009",
        "0.00000001m",
        "9999999999",
        "1e400",
        "1e999999999",
    ],
)
def test_no_cpu(text: str) -> None:
    refused("cpu", text)


def test_gpu() -> None:
    def count(text: str) -> Any:
        return limits.resources({"gpu": text})["DeviceRequests"][0]["Count"]

    assert [count(text) for text in ("all", " ALL ", "1", "08")] == [-1, -1, 1, 8]
    for text in ("", "0", "-1", "1.0", "some", "9" * 20):
        refused("gpu", text)


def test_other_keys_say_nothing() -> None:
    assert limits.resources({"disk": "nonsense", "nvidia.com/gpu": "", "Memory": "x"}) == {}


@given(st.sampled_from(["memory", "cpu", "gpu"]), st.text(max_size=60))
def test_any_text_is_read_or_refused(key: str, text: str) -> None:
    try:
        found = limits.resources({key: text})
    except InvalidRequest as error:
        assert error.code == "SANDBOX::INVALID_PARAMETER"
        assert f"resourceLimits.{key}" in error.message
        assert len(error.message) < 400
    else:
        assert found.keys() == {{"memory": "Memory", "cpu": "NanoCpus", "gpu": "DeviceRequests"}[key]}


@given(st.integers(1, 2**63 - 1), st.sampled_from(["", "b", "B"]))
def test_plain_bytes_are_what_they_say(count: int, unit: str) -> None:
    assert limits.memory_bytes(f"{count}{unit}") == count


@given(st.decimals(Decimal("0.000000001"), Decimal(10**6), places=9, allow_nan=False))
def test_cores_and_thousandths_agree(cores: Decimal) -> None:
    assert limits.nano_cpus(f"{cores:f}") == limits.nano_cpus(f"{cores * 1000:f}m") == int(cores * 10**9)


@pytest.mark.needs("docker")
async def test_the_engine_bounds_what_was_read() -> None:
    files = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max"
    older = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.cfs_quota_us"
    async with started_engine() as engine:
        bounds = limits.resources({"memory": "64Mi", "cpu": "250m"})
        seen = (await output(engine, ["sh", "-c", f"{files} 2>/dev/null || {older}"], bounds)).split()
    assert seen[:2] == [str(64 * 2**20), "25000"]


def refused(key: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        limits.resources({key: text})
    assert caught.value.code == "SANDBOX::INVALID_PARAMETER"
    assert f"resourceLimits.{key}" in caught.value.message
