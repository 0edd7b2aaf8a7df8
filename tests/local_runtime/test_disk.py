"""The bound of what one sandbox writes: nothing of it lands on this machine's disk beyond that."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local_runtime.layouts import layer, layout, tools
from tests.local_runtime.machine import ROOT, Start, ignore, local, plan, run

from shoal.errors import InvalidRequest
from shoal.models.workload import Phase
from shoal_local.runtime import LocalRuntime

PLACES = ("/tmp", "/root", "/home", "/run", "/var/tmp", "/etc", "/usr/local/share", "/")
FILL = (
    f"for d in {' '.join(PLACES)}; do (cat /dev/zero >$d/fill) 2>/dev/null; done;"
    "s=0; for d in %s; do s=$((s + $(stat -c %%s $d/fill 2>/dev/null || echo 0))); done; echo $s" % " ".join(PLACES)
)
LIMIT = 16 * 2**20


def loops() -> bool:
    """Can loop devices be used?"""
    return ROOT and Path("/dev/loop-control").exists()


def in_use(folder: Path) -> list[str]:
    """The files below ``folder`` that loop devices hold."""
    files = (device / "loop/backing_file" for device in Path("/sys/block").glob("loop*"))
    return [text for file in files if file.exists() and str(folder) in (text := file.read_text())]


@pytest.fixture(params=["loop", "tmpfs"])
async def runtime(request: pytest.FixtureRequest, start: Start, isolation: str, tmp_path: Path) -> LocalRuntime:
    if request.param == "loop" and not loops():
        pytest.skip("loop devices need root")
    return await start(local(isolation=isolation, disk_quota=request.param, image_roots=[str(tmp_path)]))


async def test_everything_it_writes_is_bounded(runtime: LocalRuntime) -> None:
    _, output = await run(runtime, plan("sh", "-c", FILL, limits={"disk": "16Mi"}))
    assert LIMIT / 2 < int(output) <= LIMIT


async def test_of_an_image_too(runtime: LocalRuntime, tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer([*tools(), ("data/", ""), ("etc/motd", "from the image\n")])])
    script = "cat /dev/zero >/data/fill; cat /etc/motd; : >/data/fill; echo new >/x; cat /x"
    _, output = await run(runtime, plan("sh", "-c", script, image=f"oci-layout:{folder}", limits={"disk": "16Mi"}))
    assert "No space left on device" in output.splitlines()[0]
    assert output.splitlines()[-2:] == ["from the image", "new"]


async def test_inspect_tells_and_it_survives_a_restart(
    start: Start, runtime: LocalRuntime, isolation: str, tmp_path: Path
) -> None:
    wanted = plan("sleep", "1000", limits={"ephemeral-storage": "16Mi"})
    await runtime.create(wanted, ignore)
    text = await runtime.inspect(wanted.id)
    assert "16 MiB, enforced by a " in text
    runtime = await start(local(isolation=isolation))
    assert [found.phase for found in await runtime.list()] == [Phase.RUNNING]
    await runtime.delete(wanted.id)
    assert list((tmp_path / "local/trash").iterdir()) == []
    assert in_use(tmp_path) == []


async def test_a_default_for_all_and_refusals(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, disk_limit="32Mi"))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    assert "32 MiB, enforced by a " in await runtime.inspect(wanted.id)
    for limits in ({"disk": "1Ki"}, {"disk": "nope"}, {"disk": "16Mi", "ephemeral-storage": "16Mi"}):
        with pytest.raises(InvalidRequest, match="disk"):
            await runtime.check(plan("true", limits=limits))


async def test_turned_off_it_is_said(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, disk_quota="off"))
    wanted = plan("sleep", "1000", limits={"disk": "16Mi"})
    await runtime.create(wanted, ignore)
    assert "16 MiB, NOT enforced" in await runtime.inspect(wanted.id)
