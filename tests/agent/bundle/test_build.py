"""The bundle is the same bytes each time, small, and runs where there is nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.agent.bundle.running import alone, answering

from shoal_agent.bundle.build import PLACE, build, command, digest_of, told_digest

LARGEST = 40 * 10**6


def content(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.stat().st_mtime, path.read_bytes()) for path in found
    }


def test_two_builds_are_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "again") == told_digest(bundle) == digest_of(bundle)
    assert content(tmp_path / "again") == content(bundle)


def test_a_changed_file_has_another_digest(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "bootstrap.sh").chmod(0o644)
    assert digest_of(copy) != told_digest(copy)


def test_it_is_small_and_holds_no_sources(bundle: Path) -> None:
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < LARGEST
    assert {path.parent.name for path in bundle.rglob("*.py")} == {"pydriver"}  # what the sandbox's own python3 runs


def test_what_runs_in_the_server_is_not_in_it(bundle: Path) -> None:
    (package,) = bundle.glob("agent/lib/python*/shoal_agent")
    assert (package / "main.pyc").is_file()
    assert not {"hooks.pyc", "placement.pyc", "bundle"} & {path.name for path in package.iterdir()}


def test_the_command_line_builds_it_and_tells_its_size(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "shoal_agent.bundle"]
    done = subprocess.run([*line, str(tmp_path / "new")], capture_output=True, text=True, check=True)
    assert "MB, sha256:" in done.stdout
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    done = subprocess.run([*line, str(tmp_path / "full")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_it_runs_in_any_folder_whatever_the_environment_says(bundle: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(bundle, tmp_path / "a folder")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    (hostile / "asyncio.py").write_text("raise SystemExit('the wrong asyncio')")
    (hostile / "libc.so.6").write_bytes(b"no library")
    env = {**os.environ, "PYTHONPATH": str(hostile), "PYTHONHOME": "/nowhere", "LD_LIBRARY_PATH": str(hostile)}
    with answering(command(moved), env) as client:
        assert client.get("/ping").status_code == 200


@pytest.mark.needs("bubblewrap")
@pytest.mark.parametrize("user", ["0", "1000"])
def test_it_runs_where_there_is_no_shell_no_library_and_nothing_to_write(bundle: Path, user: str) -> None:
    with answering([*alone(bundle, "--uid", user), f"{PLACE}/execd"]) as client:
        assert client.get("/ping").status_code == 200
        assert client.get("/nope").status_code == 404


@pytest.mark.needs("bubblewrap")
def test_the_modules_that_an_agent_may_need_are_there(bundle: Path) -> None:
    """Where nothing else could provide them."""
    names = (
        "asyncio ctypes fcntl grp hashlib json mmap pwd resource select shlex socket sqlite3 ssl termios unicodedata"
    )
    code = f"import importlib.util as u; print([n for n in {names.split()} if not u.find_spec(n)]); import hashlib"
    python = [
        f"{PLACE}/agent/python",
        "-IS",
        "-c",
        code + "; hashlib.sha256(); import asyncio, ctypes, pwd, pty, http.client",
    ]
    done = subprocess.run([*alone(bundle), *python], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("['sqlite3']\n", "")


@pytest.mark.needs("bubblewrap")
def test_every_module_of_the_agent_can_be_imported(bundle: Path) -> None:
    (package,) = bundle.glob("agent/lib/python*/shoal_agent")
    inside = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.pyc")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in inside} - {"shoal_agent.__main__"}
    code = f"import importlib\nfor name in {sorted(names)}: importlib.import_module(name)"
    python = [f"{PLACE}/agent/python", "-ISBXutf8", "-c", code]
    done = subprocess.run([*alone(bundle), *python], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "shoal_agent.main" in names
