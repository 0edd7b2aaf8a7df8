"""What a server finds that its machine can do, when it looks at a bad moment: beside moving mounts, on a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.local_runtime.machine import Start, eventually, ignore, local, plan

from shoal.errors import EngineFailure, Unavailable
from shoal.models.workload import Phase
from shoal_local.run import probe, spawn
from shoal_local.run.spawn import Isolation, MountsMoved, Order


def failing(monkeypatch: pytest.MonkeyPatch, times: int, error: Exception, *, overlay: bool | None = None) -> None:
    """The first trials fail; of those with (or without) overlay only, if that is said."""
    real, left = spawn.start, [times]

    def start(order: Order, isolation: Isolation, *rest: object) -> object:
        if left[0] and overlay in (None, isolation.overlay):
            left[0] -= 1
            raise error
        return real(order, isolation, *rest)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr(probe, "start", start)


def root_words(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [line["root"] for line in logs if line["event"] == "isolation of sandboxes"]


async def test_mounts_that_move_while_it_looks_change_nothing(
    start: Start, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, 5, MountsMoved("LOCAL::SANDBOX_START_FAILED", "mount point does not exist"))
    with capture_logs() as logs:
        await start(local(isolation=isolation))
    assert root_words(logs) == ["read-only below a private writable layer"]
    assert [line for line in logs if line["log_level"] == "warning"] == []


async def test_a_worse_verdict_is_told_and_revised(
    start: Start, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal_local.runtime.REVISIONS", (0.01, 0.01))
    failing(monkeypatch, 1, EngineFailure("LOCAL::SANDBOX_START_FAILED", "for a moment"), overlay=True)
    with capture_logs() as logs:
        runtime = await start(local(isolation=isolation))

        async def revised() -> bool | None:
            return True if len(root_words(logs)) > 1 else None

        assert await eventually(revised)
    assert root_words(logs) == [
        "read-only (no overlay file system here)",
        "read-only below a private writable layer",
    ]
    told = [line for line in logs if line["log_level"] == "warning"]
    assert len(told) == 1
    assert "for a moment" in str(told[0]["doubts"])
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    assert "Root:         read-only below a private writable layer" in await runtime.inspect(wanted.id)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system for the state directory."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount")
    folder = tmp_path / "local"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Callable[[], None]:
    """Not a byte is left; returns what frees it again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast.unlink


async def test_a_start_on_a_full_disk(
    disk: Path, start: Start, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal_local.runtime.REVISIONS", (0.01,) * 500)
    runtime = await start(local(isolation=isolation))
    kept, ended = plan("sleep", "1000"), plan("sleep", "1000")
    for wanted in (kept, ended):
        await runtime.create(wanted, ignore)
    free = fill(disk)
    with capture_logs() as logs:
        runtime = await start(local(isolation=isolation))
        assert {found.id: found.phase for found in await runtime.list()} == {
            kept.id: Phase.RUNNING,
            ended.id: Phase.RUNNING,
        }
        await runtime.pause(kept.id)
        await runtime.resume(kept.id)
        await runtime.delete(ended.id)
        assert [found.id for found in await runtime.list()] == [kept.id]
        with pytest.raises(Unavailable):
            await runtime.ping()
        free()
        free = fill(disk)
        refused = plan("sleep", "1000")
        with pytest.raises(EngineFailure, match="no space is left"):
            await runtime.create(refused, ignore)
        await runtime.delete(refused.id)
        free()
        await runtime.ping()

        async def revised() -> bool | None:
            return True if len(root_words(logs)) > 1 else None

        assert await eventually(revised)
    made = plan("sleep", "1000")
    assert (await runtime.create(made, ignore)).phase is Phase.RUNNING
