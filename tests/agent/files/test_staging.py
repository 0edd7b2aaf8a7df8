"""Content that takes its place at once, on file systems and machines that can less than most."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from shoal_agent.files.permissions import Change
from shoal_agent.files.staging import Spool, Staged


def without_tmpfile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on NFS and FAT."""
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **keywords: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *args, **keywords)

    monkeypatch.setattr("shoal_agent.files.staging.os.open", refuse)


def without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `/proc` lets nobody link what it shows."""

    def refuse(*args: Any, **keywords: Any) -> None:
        raise PermissionError(errno.EPERM, "not permitted")

    monkeypatch.setattr("shoal_agent.files.staging.os.link", refuse)


@pytest.fixture(params=["nameless", "named", "not linked"])
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the machine can."""
    if request.param == "named":
        without_tmpfile(monkeypatch)
    elif request.param == "not linked":
        without_links(monkeypatch)
    return str(request.param)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file(tmp_path: Path, machine: str) -> None:
    path = tmp_path / "a/b/new"
    staged = Staged(str(path))
    staged.write(b"con")
    assert not path.exists()
    staged.write(b"tent")
    staged.commit(Change(mode=0o640))
    assert (path.read_bytes(), mode(path)) == (b"content", 0o640)
    assert (names(tmp_path), names(path.parent)) == (["a"], ["new"])


def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, machine: str) -> None:
    before = os.umask(0o027)
    try:
        staged = Staged(str(tmp_path / "new"))
    finally:
        os.umask(before)
    staged.commit(Change())
    assert mode(tmp_path / "new") == 0o750


def test_a_file_is_replaced(tmp_path: Path, machine: str) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    path.chmod(0o604)
    with path.open("rb") as before:
        staged = Staged(str(path))
        staged.write(b"new")
        staged.commit(Change())
        assert before.read() == b"old"  # who has it open reads on what it was
    assert (path.read_bytes(), mode(path), names(tmp_path)) == (b"new", 0o604, ["old"])


def test_what_is_discarded_leaves_nothing(tmp_path: Path, machine: str) -> None:
    staged = Staged(str(tmp_path / "new"))
    staged.write(b"x")
    staged.discard()
    staged.discard()
    staged = Staged(str(tmp_path / "new"))
    staged.park()
    staged.discard()
    assert names(tmp_path) == []


def test_what_is_parked_is_written_all_the_same(tmp_path: Path, machine: str) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new", "folder/new"):
        staged = Staged(str(tmp_path / name))
        staged.write(name.encode())
        staged.park()
        staged.commit(Change(mode=0o600))
        assert ((tmp_path / name).read_bytes(), mode(tmp_path / name)) == (name.encode(), 0o600)
    assert names(tmp_path) == ["folder", "new", "old"]


def test_a_file_that_another_made_meanwhile(tmp_path: Path, machine: str) -> None:
    staged = Staged(str(tmp_path / "new"))
    staged.write(b"ours")
    (tmp_path / "new").write_bytes(b"another's")
    staged.commit(Change())
    assert ((tmp_path / "new").read_bytes(), names(tmp_path)) == (b"ours", ["new"])


def test_many_writers_of_one_file(tmp_path: Path, machine: str) -> None:
    path = tmp_path / "file"
    contents = [bytes([number]) * 50_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(5):
            staged = Staged(str(path))
            staged.write(content)
            staged.commit(Change(mode=0o600))

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_bytes() in contents
    assert (path.read_bytes() in contents, names(tmp_path)) == (True, ["file"])


def test_a_spool_is_adopted_in_parts(tmp_path: Path) -> None:
    spool = Spool()
    spool.write(b"onetwothree")
    staged = Staged(str(tmp_path / "new"))
    staged.adopt(spool, 3, 3)
    staged.commit(Change())
    spool.discard()
    assert (tmp_path / "new").read_bytes() == b"two"


def test_an_overwritten_file_has_room_before_it_loses_anything(tmp_path: Path) -> None:
    """A file with two names on a disk that is too small for its new content."""
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=False).returncode
    ):
        pytest.skip("this machine does not let us mount")
    try:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        os.link(path, tmp_path / "same")
        staged = Staged(str(path))
        staged.write(b"x" * 700_000)
        with pytest.raises(OSError, match="No space") as refused:
            staged.commit(Change())
        assert refused.value.errno == errno.ENOSPC
        assert path.read_bytes() == b"old"
        assert path.samefile(tmp_path / "same")
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_shorter_content_in_a_file_with_two_names(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"long old content")
    os.link(path, tmp_path / "same")
    staged = Staged(str(path))
    staged.write(b"new")
    staged.commit(Change(mode=0o600))
    assert ((tmp_path / "same").read_bytes(), mode(path)) == (b"new", 0o600)
