"""The bundle as one file: unpacks itself where it may, once, and is the agent."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.agent.bundle.running import answering

from shoal_agent.bundle.build import told_digest
from shoal_agent.bundle.single import single_file


@pytest.fixture(scope="module")
def content(bundle: Path) -> bytes:
    return single_file(bundle)


@pytest.fixture
def execd(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "home" / "execd"
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_it_is_the_same_each_time(bundle: Path, content: bytes) -> None:
    assert single_file(bundle) == content


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no bundle"):
        single_file(tmp_path)


def test_it_unpacks_itself_once(execd: Path) -> None:
    with answering([str(execd)]) as client:
        assert client.get("/ping").status_code == 200
    assert sorted(path.name for path in execd.parent.iterdir()) == ["agent", "execd"]
    unpacked = (execd.parent / "agent/python").stat().st_ino
    with answering([str(execd)]):
        assert (execd.parent / "agent/python").stat().st_ino == unpacked


def test_it_unpacks_itself_elsewhere_where_it_may_not_write(bundle: Path, execd: Path, tmp_path: Path) -> None:
    (execd.parent / "agent").touch()  # what stands in its way
    with answering([str(execd)], {**os.environ, "TMPDIR": str(tmp_path)}) as client:
        assert client.get("/ping").status_code == 200
    assert (tmp_path / f".execd-{(told_digest(bundle) or '')[7:19]}" / "agent/python").is_file()


def test_it_says_what_it_lacks(execd: Path, tmp_path: Path) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run(
        [shell, str(execd)], env={"PATH": "/none", "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "takes tail, tar" in done.stderr
