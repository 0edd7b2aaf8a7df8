"""What a server finds after it was killed: everything, and nothing that is not its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.local_runtime.machine import (
    Start,
    below,
    can_bubblewrap,
    can_unshare,
    eventually,
    groups_of,
    ignore,
    local,
    plan,
    processes_of,
    settings,
    there,
)

from shoal.errors import ConfigError
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import LogQuery
from shoal_local.run.process import Process, boot_id, identify
from shoal_local.runtime import LocalRuntime
from shoal_local.state.box import Box, Started
from shoal_local.state.directory import StateDirectory

VICTIM = """
import asyncio, os, sys
from pathlib import Path
from tests.local_runtime.machine import ignore, local, plan, settings
from shoal_local.runtime import LocalRuntime

async def main():
    runtime = LocalRuntime(settings(Path(sys.argv[1])), local(isolation=sys.argv[2]))
    await runtime.start()
    for wanted in (plan("sleep", "1000"), plan("sh", "-c", "sleep 1000 & wait"), plan("sh", "-c", "exit 5")):
        await runtime.create(wanted, ignore)
        print(wanted.id, flush=True)
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    await runtime.pause(wanted.id)
    print(wanted.id, flush=True)
    print("all", flush=True)
    await asyncio.gather(*(runtime.create(plan("sleep", "1000"), ignore) for _ in range(200)))

asyncio.run(main())
"""


def _kill_in_the_middle(base: Path, isolation: str) -> list[str]:
    """Run a server that makes sandboxes, and kill it while it makes more; returns the ids that it had told."""
    words = [sys.executable, "-c", VICTIM, str(base), isolation]
    repository = Path(__file__).parents[2]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=repository) as victim:
        assert victim.stdout is not None
        told = [
            line.strip() for line in iter(victim.stdout.readline, "all\n") if "-" in line and " " not in line.strip()
        ]
        time.sleep(0.05)  # into the 200 that follow; any instant will do
        victim.kill()
    return told


async def test_everything_is_found_after_kill(start: Start, isolation: str, tmp_path: Path) -> None:
    told = _kill_in_the_middle(tmp_path, isolation)
    runtime = await start(local(isolation=isolation))
    found = {workload.id: workload for workload in await runtime.list()}
    assert [found[sandbox_id].phase for sandbox_id in told] == [
        Phase.RUNNING,
        Phase.RUNNING,
        Phase.FAILED,
        Phase.PAUSED,
    ]
    assert "exit code 5" in (found[told[2]].message or "")
    assert found[told[0]].adoption is not None
    assert (await runtime.resume(told[3])).phase is Phase.RUNNING
    for sandbox_id in found:
        await runtime.delete(sandbox_id)
    assert [pid for sandbox_id in found for pid in processes_of(sandbox_id)] == []
    assert [group for sandbox_id in found for group in groups_of(sandbox_id)] == []
    assert list((tmp_path / "local/sandboxes").iterdir()) == []


async def test_the_end_of_an_adopted_sandbox_is_told(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation))
    wanted = plan("sh", "-c", "while ! [ -e /var/tmp/go ]; do sleep 0.05; done; exit 4")
    await runtime.create(wanted, ignore)
    runtime = await start(local(isolation=isolation))
    changes = runtime.watch()
    (tmp_path / "local/sandboxes" / wanted.id / "var-tmp/go").touch()
    told = await asyncio.wait_for(anext(changes), 30)
    assert isinstance(told, Workload)
    assert "exit code 4" in (told.message or "")


async def test_half_made_is_replaced(start: Start, isolation: str, tmp_path: Path) -> None:
    """Killed between spawning and noting it: the process is found again and replaced, never doubled."""
    runtime = await start(local(isolation=isolation))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    before = set(processes_of(wanted.id))
    (tmp_path / "local/sandboxes" / wanted.id / "started").unlink()
    runtime = await start(local(isolation=isolation))
    assert [workload.phase for workload in await runtime.list()] == [Phase.PENDING]
    assert (await runtime.create(wanted, ignore)).phase is Phase.RUNNING
    assert before.isdisjoint(processes_of(wanted.id))


async def test_leftovers_without_a_specification_are_removed(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    (tmp_path / "local/sandboxes" / wanted.id / "spec.json").unlink()
    (tmp_path / "local/trash/old/deep").mkdir(parents=True)
    runtime = await start(local(isolation=isolation))
    assert await runtime.list() == []
    assert processes_of(wanted.id) == []
    assert groups_of(wanted.id) == []

    async def emptied() -> bool | None:
        return not list((tmp_path / "local/trash").iterdir()) or None

    await eventually(emptied)


async def test_a_recycled_pid_is_nobody(start: Start, isolation: str, tmp_path: Path) -> None:
    """A stranger has the recorded pid: the sandbox is reported as ended, and the stranger survives its removal."""
    runtime = await start(local(isolation=isolation))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    box = Box(tmp_path / "local/sandboxes" / wanted.id)
    started = box.started()
    assert started is not None
    os.kill((started.init or started.top).pid, signal.SIGKILL)

    async def dead() -> bool | None:
        return not box.locked() or None

    await eventually(dead)
    with subprocess.Popen(["sleep", "1000"]) as stranger:  # noqa: ASYNC220 - nothing else runs on this loop
        mine = identify(stranger.pid)
        assert mine is not None
        for forged in (Process(mine.pid, mine.started - 1, mine.boot), Process(mine.pid, mine.started, "another-boot")):
            box.write_started(Started(forged, forged, started.at))
            runtime = await start(local(isolation=isolation))
            assert [workload.phase for workload in await runtime.list()] == [Phase.FAILED]
        await runtime.delete(wanted.id)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_is_only_itself() -> None:
    me = identify(os.getpid())
    assert me is not None
    assert me.alive()
    assert not Process(me.pid, me.started + 1, me.boot).alive()
    assert not Process(me.pid, me.started, "0" * 36).alive()
    assert identify(2**22 + 1) is None
    assert boot_id() == me.boot


async def test_logs_go_on_without_a_server(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation))
    wanted = plan("sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.01; done")
    await runtime.create(wanted, ignore)
    await runtime.stop()
    runtime = await start(local(isolation=isolation))

    async def counted() -> list[str] | None:
        lines = (await runtime.logs(wanted.id, LogQuery(tail=10_000))).splitlines()
        return lines if len(lines) > 20 else None

    lines = await eventually(counted)
    assert lines == [f"line {number}" for number in range(1, len(lines) + 1)]


async def test_one_server_at_a_time(start: Start, isolation: str, tmp_path: Path) -> None:
    await start(local(isolation=isolation))
    second = LocalRuntime(settings(tmp_path), local(isolation=isolation))
    with pytest.raises(ConfigError, match="another server"):
        await second.start()
    await second.stop()


async def test_an_empty_server_leaves_nothing_outside_its_directory(tmp_path: Path) -> None:
    if not (can_unshare() or can_bubblewrap()):
        pytest.skip("no isolation works here")
    runtime = LocalRuntime(settings(tmp_path), local())
    name = StateDirectory(settings(tmp_path), local()).name
    await runtime.start()
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)
    await runtime.stop()
    assert below(Path("/sys/fs/cgroup"), name) == []
    assert not there(f"/run/{name}")


async def test_damaged_directories_do_not_fail_the_list(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    for name, content in (("a", b""), ("b", b"{"), ("c", msgspec.json.encode({"id": "c"}))):
        folder = tmp_path / "local/sandboxes" / name
        folder.mkdir()
        (folder / "spec.json").write_bytes(content)
    assert [workload.id for workload in await runtime.list()] == [wanted.id]
