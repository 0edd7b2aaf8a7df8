"""Quantities, and limits that really bind."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, below, end, groups_of, ignore, local, plan, run

from shoal.errors import InvalidRequest
from shoal.models.workload import Phase
from shoal_local.limit.cgroups import Cgroups, Hierarchy, detect
from shoal_local.limit.limits import Limits, parse
from shoal_local.runtime import LocalRuntime

HOG = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived ${#x}"


def test_what_a_request_asks_for() -> None:
    read = parse({"cpu": "500m", "memory": "1.5Gi", "disk": "64Mi", "gpu": "1"}, pids=7)
    assert read == Limits(cpu=0.5, memory=3 * 2**29, pids=7, disk=64 * 2**20)


@pytest.mark.parametrize("key", ["cpu", "memory", "disk"])
@pytest.mark.parametrize("text", ["", "1 Gi", "abc", "-1", "0", "1GB", "1Kib", "9" * 40, "1E99E", "0m"])
def test_bad_quantities(key: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"resourceLimits\.{key}: .*(quantity|less|number)"):
        parse({key: text}, pids=0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("512m", "m is a thousandth, 512Mi is mebibytes"), ("1Ki", "less memory than the 6Mi"), ("1E99", "quantity|more")],
)
async def test_memory_that_cannot_be_meant(runtime: LocalRuntime, text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        await runtime.check(plan("true", limits={"memory": text}))


async def test_the_least_memory_is_enough_for_a_shell(runtime: LocalRuntime) -> None:
    _, output = await run(runtime, plan("sh", "-c", "echo here", limits={"memory": "6Mi"}))
    assert output == "here\n"


async def test_bad_limits_are_refused(runtime: LocalRuntime) -> None:
    for key in ("cpu", "memory"):
        with pytest.raises(InvalidRequest) as refused:
            await runtime.check(plan("true", limits={key: "a lot"}))
        assert refused.value.code == "SANDBOX::INVALID_PARAMETER"
        assert f"resourceLimits.{key}" in refused.value.message
    with pytest.raises(InvalidRequest, match="gpu"):
        await runtime.check(plan("true", limits={"gpu": "1"}))
    await runtime.check(plan("true", limits={"other": "whatever"}))


async def test_memory_by_cgroup(runtime: LocalRuntime) -> None:
    wanted = plan("sh", "-c", HOG, limits={"memory": "64Mi"})
    await runtime.create(wanted, ignore)
    text = await runtime.inspect(wanted.id)
    if "enforced by cgroup" not in next(line for line in text.splitlines() if line.strip().startswith("Memory:")):
        pytest.skip("no memory cgroup is writable here")
    ended = await end(runtime, wanted.id)
    assert ended.phase is Phase.FAILED
    assert ended.reason == "OOM_KILLED"
    assert "OOMKilled:      true" in await runtime.inspect(wanted.id)


async def test_memory_by_rlimit(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, cgroups="off"))
    wanted = plan("sh", "-c", HOG, limits={"memory": "64Mi", "cpu": "1"})
    ended, output = await run(runtime, wanted)
    assert "survived 200000000" not in output
    assert ended.phase is Phase.FAILED or "survived" not in output
    text = await runtime.inspect(wanted.id)
    assert "64 MiB, enforced by rlimit" in text
    assert "1.00 cores, NOT enforced" in text


async def test_pids_by_cgroup(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, pids_limit=20))
    wanted = plan("sh", "-c", "i=0; while [ $i -lt 50 ]; do i=$((i+1)); sleep 100 & done; echo all")
    _, output = await run(runtime, wanted)
    text = await runtime.inspect(wanted.id)
    if "20, enforced by cgroup" not in text:
        assert "20, NOT enforced" in text
        pytest.skip("no pids cgroup is writable here")
    assert output != "all\n"


async def test_cpu_by_cgroup(runtime: LocalRuntime) -> None:
    wanted = plan("sleep", "1000", limits={"cpu": "250m"})
    await runtime.create(wanted, ignore)
    if "0.25 cores, enforced" not in await runtime.inspect(wanted.id):
        pytest.skip("no cpu cgroup is writable here")
    groups = groups_of(wanted.id)
    files = [file for group in groups for name in ("cpu.cfs_quota_us", "cpu.max") if (file := group / name).exists()]
    assert [file.read_text().split()[0] for file in files] == ["25000"]


async def test_freezer_of_version_one(
    start: Start, isolation: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where both versions can freeze, version 2 is used; so version 1 is asked for here."""
    mount = Path("/sys/fs/cgroup/freezer")

    made: list[Cgroups] = []

    def only_one(name: str) -> Cgroups:
        detect(name).close()
        base = mount / name
        base.mkdir()
        made.append(Cgroups({"freezer": Hierarchy(1, base)}))
        return made[0]

    try:
        (mount / "shoal-trial").mkdir()
        (mount / "shoal-trial").rmdir()
    except OSError:
        pytest.skip("no freezer of version 1 is writable here")
    monkeypatch.setattr("shoal_local.keeper.detect", only_one)
    runtime = await start(local(isolation=isolation))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    assert (await runtime.pause(wanted.id)).phase is Phase.PAUSED
    assert [folder.joinpath("freezer.state").read_text() for folder in below(mount, wanted.id)] == ["FROZEN\n"]
    assert (await runtime.resume(wanted.id)).phase is Phase.RUNNING
    await runtime.pause(wanted.id)
    await runtime.delete(wanted.id)
    assert below(mount, wanted.id) == []
    made[0].close()


def test_limits_default_to_none() -> None:
    assert Limits() == Limits(cpu=None, memory=None, pids=0)
