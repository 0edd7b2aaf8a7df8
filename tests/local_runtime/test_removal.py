"""Removing what sandboxes leave: trees that are closed, deep, or change meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, eventually, ignore, local, plan, run, there

from shoal_local.runtime import LocalRuntime
from shoal_local.state.trees import remove_tree

DEPTH = 3000


def dig(folder: Path, depth: int) -> None:
    """Directories within directories, deeper than a path may be long."""
    folder.mkdir()
    at = os.open(folder, os.O_PATH)
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_PATH, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT, dir_fd=at))
    os.close(at)


def test_deep_directories(tmp_path: Path) -> None:
    dig(tmp_path / "deep", DEPTH)
    remove_tree(tmp_path / "deep")
    assert list(tmp_path.iterdir()) == []


def test_closed_directories_and_links(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir(mode=0o750)
    (tmp_path / "outside/kept").touch()
    tree = tmp_path / "tree"
    (tree / "closed/inner").mkdir(parents=True)
    (tree / "closed/inner/file").touch()
    (tree / "link").symlink_to(tmp_path / "outside")
    for folder in (tree / "closed/inner", tree / "closed", tree):
        folder.chmod(0)
    remove_tree(tree)
    remove_tree(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside/kept").exists()
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o750


def test_a_directory_that_is_swapped_for_a_link_meanwhile(tmp_path: Path) -> None:
    """Nothing outside is removed or opened up, whatever a process does that is still there."""
    (tmp_path / "outside").mkdir(mode=0o700)
    (tmp_path / "outside/kept").touch()
    over = threading.Event()
    tree = tmp_path / "tree"

    def swap() -> None:
        while not over.is_set():
            try:
                (tree / "d").symlink_to(tmp_path / "outside")
                (tree / "d").unlink()
                (tree / "d").mkdir(mode=0)
                (tree / "d").rmdir()
            except OSError:
                continue

    swapping = threading.Thread(target=swap)
    swapping.start()
    for _ in range(200):
        tree.mkdir(exist_ok=True)
        try:
            remove_tree(tree)
        except OSError:
            continue  # it was not empty in the end
    over.set()
    swapping.join()
    assert (tmp_path / "outside/kept").exists()
    assert (tmp_path / "outside").stat().st_mode & 0o777 == 0o700


async def test_a_sandbox_with_deep_directories_is_deleted(runtime: LocalRuntime, tmp_path: Path) -> None:
    if not there("/usr/bin/python3"):
        pytest.skip("needs python3 in /usr/bin")
    script = f"import os\nos.chdir('/tmp')\nfor _ in range({DEPTH}):\n  os.mkdir('d'); os.chdir('d')\nprint('done')"
    wanted = plan("/usr/bin/python3", "-c", script)
    assert (await run(runtime, wanted))[1] == "done\n"
    await runtime.delete(wanted.id)
    assert list((tmp_path / "local/trash").iterdir()) == []


async def test_one_entry_that_stays_does_not_stop_the_sweep(
    start: Start, isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start(local(isolation=isolation))
    trash = tmp_path / "local/trash"
    for name in ("a", "b", "c"):
        (trash / name / "inner").mkdir(parents=True)
    first = next(trash.iterdir()).name
    broken: list[str] = [first]

    def failing(entry: Path) -> None:
        if entry.name in broken:
            raise RecursionError
        remove_tree(entry)

    monkeypatch.setattr("shoal_local.keeper.remove_tree", failing)
    monkeypatch.setattr("shoal_local.runtime.SWEEP_INTERVAL", 0.01)
    runtime = await start(local(isolation=isolation))

    async def left() -> list[str] | None:
        return [path.name for path in trash.iterdir()] if len(list(trash.iterdir())) < 2 else None

    assert await eventually(left) == [first]
    broken.clear()

    async def swept() -> bool | None:
        return True if not list(trash.iterdir()) else None

    assert await eventually(swept)
    assert runtime is not None


async def test_files_that_cannot_be_removed_are_no_failure(
    runtime: LocalRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)

    def failing(entry: Path) -> None:
        raise OSError(5, "Input/output error", str(entry))

    monkeypatch.setattr("shoal_local.run.reaper.remove_tree", failing)
    await runtime.delete(wanted.id)
    assert await runtime.list() == []
    assert len(list((tmp_path / "local/trash").iterdir())) == 1
