"""Creating, pausing, ending and removing real sandboxes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.local_runtime.machine import (
    Start,
    below,
    end,
    eventually,
    groups_of,
    ignore,
    local,
    mounts_naming,
    plan,
    processes_of,
    run,
)

from shoal.errors import Conflict, EngineFailure, InvalidRequest
from shoal.models.requests import HostVolume, Volume
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import LogQuery
from shoal_local.runtime import LocalRuntime

COUNT = "while :; do echo x >>/tmp/count; done"


async def test_runs_and_reports_its_address(runtime: LocalRuntime) -> None:
    wanted = plan("sleep", "1000")
    await runtime.check(wanted)
    made = await runtime.create(wanted, ignore)
    assert (made.phase, made.reason, made.tunnelled) == (Phase.RUNNING, "PROCESS_RUNNING", True)
    assert made.adoption is not None
    assert made.adoption.metadata == {"team": "blue"}
    assert await runtime.list() == [made]


@pytest.mark.parametrize(("code", "phase"), [(0, Phase.EXITED), (3, Phase.FAILED)])
async def test_exit_code_decides_the_phase(runtime: LocalRuntime, code: int, phase: Phase) -> None:
    ended, output = await run(runtime, plan("sh", "-c", f"echo out; echo err >&2; exit {code}"))
    assert ended.phase is phase
    assert ended.message is not None
    assert f"exit code {code}" in ended.message
    assert output.splitlines() == ["out", "err"]


async def test_signal_is_named(runtime: LocalRuntime) -> None:
    ended, _ = await run(runtime, plan("sh", "-c", "kill -TERM $$; sleep 100"))
    assert ended.reason == "PROCESS_EXITED_ERROR"
    assert "SIGTERM" in (ended.message or "")


async def test_watch_tells_of_the_end_and_the_removal(runtime: LocalRuntime) -> None:
    changes = runtime.watch()
    wanted = plan("sh", "-c", "exit 7")
    await runtime.create(wanted, ignore)
    told = await asyncio.wait_for(anext(changes), 30)
    assert isinstance(told, Workload)
    assert (told.id, told.phase) == (wanted.id, Phase.FAILED)
    assert [told] == await runtime.list()
    await runtime.delete(wanted.id)
    assert await asyncio.wait_for(anext(changes), 30) == WorkloadGone(id=wanted.id)


async def test_interrupt_is_not_ignored(runtime: LocalRuntime) -> None:
    _, output = await run(runtime, plan("sh", "-c", "trap 'echo heard; exit 0' INT; kill -INT $$; sleep 1"))
    assert output == "heard\n"


async def test_orphans_are_reaped(runtime: LocalRuntime) -> None:
    script = "for i in 1 2 3 4 5; do (true &); done; while grep -qs '^State:.Z' /proc/*/status; do :; done; echo clean"
    _, output = await run(runtime, plan("sh", "-c", script))
    assert output == "clean\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-command", "not found in PATH"),
        ("/no/such/file", "does not exist"),
        ("/etc/passwd", "not an executable file"),
        ("/usr", "not an executable file"),
    ],
)
async def test_command_that_cannot_run_fails_the_create(runtime: LocalRuntime, command: str, reason: str) -> None:
    wanted = plan(command)
    with pytest.raises(EngineFailure, match=reason):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)
    assert await runtime.list() == []


async def test_create_twice_is_one(runtime: LocalRuntime) -> None:
    wanted = plan("sleep", "1000")
    first = await runtime.create(wanted, ignore)
    before = processes_of(wanted.id)
    assert await runtime.create(wanted, ignore) == first
    assert processes_of(wanted.id) == before


async def test_many_at_once(runtime: LocalRuntime) -> None:
    plans = [plan("sleep", "1000") for _ in range(24)]
    made = await asyncio.gather(*(runtime.create(wanted, ignore) for wanted in plans))
    assert {workload.phase for workload in made} == {Phase.RUNNING}
    assert {workload.id for workload in await runtime.list()} == {wanted.id for wanted in plans}
    await asyncio.gather(*(runtime.delete(wanted.id) for wanted in plans))
    assert await runtime.list() == []
    assert [pid for wanted in plans for pid in processes_of(wanted.id)] == []


async def test_pause_freezes_every_process_and_resume_thaws(runtime: LocalRuntime, tmp_path: Path) -> None:
    wanted = plan("sh", "-c", f"({COUNT}) & {COUNT}")
    await runtime.create(wanted, ignore)
    await _assert_pauses(runtime, wanted.id, tmp_path)


async def test_pause_by_signals_where_there_is_no_freezer(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation, cgroups="off"))
    wanted = plan("sh", "-c", f"({COUNT}) & while :; do sh -c : ; echo x >>/tmp/count; done")
    await runtime.create(wanted, ignore)
    await _assert_pauses(runtime, wanted.id, tmp_path)


async def _assert_pauses(runtime: LocalRuntime, sandbox_id: str, tmp_path: Path) -> None:
    def count() -> int:
        return sum(file.stat().st_size for file in below(tmp_path / "local/sandboxes" / sandbox_id, "count"))

    async def grown_beyond(size: int) -> bool | None:
        return count() > size or None

    await eventually(lambda: grown_beyond(0))
    assert (await runtime.pause(sandbox_id)).phase is Phase.PAUSED
    stopped = count()
    await asyncio.sleep(0.3)
    assert count() == stopped
    assert [w.phase for w in await runtime.list()] == [Phase.PAUSED]
    with pytest.raises(Conflict) as refused:
        await runtime.pause(sandbox_id)
    assert refused.value.code == "LOCAL::SANDBOX_NOT_RUNNING"
    assert (await runtime.resume(sandbox_id)).phase is Phase.RUNNING
    await eventually(lambda: grown_beyond(stopped))
    with pytest.raises(Conflict) as refused:
        await runtime.resume(sandbox_id)
    assert refused.value.code == "LOCAL::SANDBOX_NOT_PAUSED"
    await runtime.pause(sandbox_id)
    await runtime.delete(sandbox_id)
    assert processes_of(sandbox_id) == []


async def test_delete_leaves_nothing(runtime: LocalRuntime, tmp_path: Path) -> None:
    files = "mkdir -p /tmp/a/b; touch /tmp/a/b/c; chmod 000 /tmp/a"
    mess = f"{files}; (setsid sleep 1000 &); (setsid sh -c 'trap : TERM; sleep 1000' &)"
    wanted = plan("sh", "-c", f"{mess}; touch /tmp/done; exec sleep 1000")
    await runtime.create(wanted, ignore)

    async def messy() -> bool | None:
        return bool(below(tmp_path / "local/sandboxes" / wanted.id, "done")) or None

    await eventually(messy)
    assert processes_of(wanted.id) != []
    await runtime.delete(wanted.id)
    assert processes_of(wanted.id) == []
    assert groups_of(wanted.id) == []
    assert mounts_naming(wanted.id) == []
    assert [path for path in below(tmp_path, "*") if wanted.id in str(path)] == []
    await runtime.delete(wanted.id)


async def test_grace_lets_a_process_finish(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation, stop_grace_seconds=20.0), (str(tmp_path),))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    volume = Volume(name="shared", mount_path="/shared", host=HostVolume(path=str(tmp_path / "shared")))
    script = "trap 'echo bye >/shared/last; exit 0' TERM; touch /shared/ready; while :; do sleep 0.05; done"
    wanted = plan("sh", "-c", script, volumes=(volume,))
    await runtime.create(wanted, ignore)

    async def ready() -> bool | None:
        return (tmp_path / "shared/ready").exists() or None

    await eventually(ready)
    await runtime.delete(wanted.id)
    assert (tmp_path / "shared/last").read_text() == "bye\n"


async def test_unmapped_image_says_how_to_map_it(runtime: LocalRuntime) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await runtime.check(plan("true", image="python:3.11"))
    assert refused.value.code == "SANDBOX::INVALID_PARAMETER"
    assert "[local.images]" in refused.value.message


async def test_nothing_of_an_ended_sandbox_runs_on(runtime: LocalRuntime) -> None:
    wanted = plan("sh", "-c", "(setsid sleep 1000 &); exit 0")
    await runtime.create(wanted, ignore)
    await end(runtime, wanted.id)

    async def gone() -> bool | None:
        return not processes_of(wanted.id) or None

    await eventually(gone)


async def test_diagnostics(runtime: LocalRuntime) -> None:
    wanted = plan("sleep", "1000", env={"API": "s3cr3t-value"}, limits={"cpu": "500m", "memory": "64Mi"})
    await runtime.create(wanted, ignore)
    await runtime.pause(wanted.id)
    text = await runtime.inspect(wanted.id)
    assert "s3cr3t-value" not in text
    assert "Paused:         true" in text
    assert "Isolated:     user, mount, pid, ipc, uts" in text
    assert "0.50 cores" in text
    assert "64 MiB" in text
    events = await runtime.events(wanted.id, 50)
    assert [line.rsplit(" ", 1)[1] for line in events.splitlines()[2:]] == ["created", "started", "paused"]
    assert len((await runtime.events(wanted.id, 3)).splitlines()) == 3
    assert await runtime.logs(wanted.id, LogQuery()) == "(no logs)"
