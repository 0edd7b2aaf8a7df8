"""Captured output: bounded, complete at its end, cheap to read."""

from __future__ import annotations

import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, end, eventually, ignore, local, plan

from shoal.plugin.interfaces import LogQuery
from shoal_local.state.box import Box
from shoal_local.state.logs import LogKeeper, Marks, cut, since, tail

KEEP = 256 * 1024


@pytest.mark.parametrize("mode", ["collapse", "hole", "rewrite"])
def test_cutting_loses_only_the_oldest(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer appends at full speed while the file is cut; its newest lines stay, in order, without a gap."""
    allowed = {"collapse": (0x08, 0x03), "hole": (0x03,), "rewrite": ()}[mode]
    from shoal_local.state import logs

    real = logs._take
    monkeypatch.setattr(logs, "_take", lambda handle, how, length: how in allowed and real(handle, how, length))
    path, marks = tmp_path / "output.log", Marks()
    script = f"i=0; while [ $i -lt 200000 ]; do i=$((i+1)); echo line $i; done >>{path}"
    with subprocess.Popen(["sh", "-c", script]) as writer:
        while writer.poll() is None:
            cut(path, KEEP, marks)
            if mode == "rewrite":
                time.sleep(0.05)
    cut(path, KEEP, marks)
    assert path.stat().st_blocks * 512 <= 3 * KEEP
    lines = tail(path, 10**6).splitlines()
    assert lines[-1] == "line 200000"
    if mode != "rewrite":
        numbers = [int(line.split()[1]) for line in lines[1:]]
        assert numbers == list(range(numbers[0], 200001))
        assert len("\n".join(lines)) >= KEEP - 8192


def test_tail_reads_the_end_and_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(100_000)) + b"\xff\xfe broken\nno newline")
    assert tail(path, 2) == "\ufffd\ufffd broken\nno newline"
    assert tail(path, 4).splitlines()[0] == "99998"
    assert tail(path, 0) == ""
    assert tail(tmp_path / "absent", 10) == ""


def test_since_uses_what_is_known(tmp_path: Path) -> None:
    path, marks = tmp_path / "log", Marks()
    path.write_bytes(b"old\n")
    marks.note(1000.0, 4)
    path.write_bytes(b"old\nnew\n")
    marks.note(2000.0, 8)

    def text(moment: float) -> str | None:
        start = since(path, marks, datetime.fromtimestamp(moment, UTC))
        return None if start is None else tail(path, 10, start)

    assert text(500.0) == "old\nnew\n"
    assert text(1500.0) == "new\n"
    assert text(2500.0) == ""
    assert since(path, marks, datetime.now(UTC) + timedelta(hours=1)) is None


def test_since_survives_a_cut(tmp_path: Path) -> None:
    path, marks = tmp_path / "log", Marks()
    path.write_bytes(b"x" * (4 * KEEP - 1) + b"\n")
    marks.note(1000.0, 4 * KEEP)
    length = cut(path, KEEP, marks)
    marks.note(1001.0, length)
    with path.open("ab") as file:
        file.write(b"new\n")
    assert tail(path, 10, since(path, marks, datetime.fromtimestamp(1002.0, UTC)) or 0) == "new\n"


async def test_a_fast_logger_is_bounded(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation, log_max_bytes=KEEP))
    count = 400_000
    wanted = plan("sh", "-c", f"i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo line $i; done")
    await runtime.create(wanted, ignore)
    await end(runtime, wanted.id)
    log = tmp_path / "local/sandboxes" / wanted.id / "output.log"

    async def small() -> bool | None:
        return log.stat().st_blocks * 512 < 2 * KEEP + os.statvfs(log).f_bsize or None

    await eventually(small)
    lines = (await runtime.logs(wanted.id, LogQuery(tail=1000))).splitlines()
    assert lines == [f"line {number}" for number in range(count - 999, count + 1)]


async def test_since_of_a_running_sandbox(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation))
    wanted = plan("sh", "-c", "echo early; sleep 1000")
    await runtime.create(wanted, ignore)

    async def noted() -> bool | None:
        later = LogQuery(since=datetime.now(UTC))
        return (
            await runtime.logs(wanted.id, later) == "(no logs)" and "early" in await runtime.logs(wanted.id, LogQuery())
        ) or None

    await eventually(noted)
    assert await runtime.logs(wanted.id, LogQuery(since=datetime.now(UTC) - timedelta(hours=1))) == "early\n"


def test_nothing_written_is_said(tmp_path: Path) -> None:
    keeper = LogKeeper(KEEP)
    assert keeper.text(Box(tmp_path), LogQuery()) == "(no logs)"
