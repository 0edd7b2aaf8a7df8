"""Moving, replacing, permissions, deleting and directories of the real program."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.files.place import Place, refused

from shoal_agent.files.replace import Replacement, pieces

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def post(place: Place, route: str, body: Any) -> httpx.Response:
    return place.http.post(route, json=body)


def move(place: Place, source: str, target: str) -> httpx.Response:
    return post(place, "/files/mv", [{"src": place.path(source), "dest": place.path(target)}])


def succeeded(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.content) == (200, b"")


def test_moving(place: Place) -> None:
    place.write("a", b"1", 0o640)
    (place.folder / "folder").mkdir()
    (place.folder / "folder/x").touch()
    (place.folder / "link").symlink_to("a")
    (place.folder / "dangling").symlink_to("nowhere")
    assert succeeded(move(place, "a", "new/sub/b"))
    assert succeeded(move(place, "folder", "moved"))
    assert succeeded(move(place, "link", "link2"))
    assert succeeded(move(place, "dangling", "dangling2"))
    assert place.names() == ["dangling2", "link2", "moved", "moved/x", "new", "new/sub", "new/sub/b"]
    assert (place.folder / "link2").readlink() == Path("a")
    assert mode(place.folder / "new/sub/b") == 0o640


def test_moving_refuses(place: Place) -> None:
    place.write("a", b"1")
    place.write("b", b"2")
    place.write("d/x")
    refused(move(place, "none", "c"), 404, "FILE_NOT_FOUND")
    for target in ("a", "b", "d"):
        refused(move(place, "a", target), 409, "FILE_EXISTS")
    refused(move(place, "d", "d/e"), 400, "INVALID_REQUEST_BODY")
    refused(move(place, "a", "b/c"), 400, "INVALID_FILE")
    refused(post(place, "/files/mv", {}), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/files/mv", [{"src": place.path("a")}]), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/files/mv", [{"src": place.path("a"), "dest": ""}]), 400, "INVALID_REQUEST_BODY")
    assert (place.names(), (place.folder / "b").read_bytes()) == (["a", "b", "d", "d/x"], b"2")


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_a_move_that_fails_leaves_no_folder(place: Place) -> None:
    refused(post(place, "/files/mv", [{"src": "/etc/hostname", "dest": place.path("a/b/c")}]), 403, "PERMISSION_DENIED")
    assert place.names() == []


def test_moving_stops_at_the_first_error(place: Place) -> None:
    for name in "abc":
        place.write(name)
    moves = [{"src": place.path(n), "dest": place.path(n.upper())} for n in ("a", "none", "c")]
    refused(post(place, "/files/mv", moves), 404, "FILE_NOT_FOUND")
    assert place.names() == ["A", "b", "c"]


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder)
        path.chmod(0o777)
        if path.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
            pytest.skip("this machine has one file system")
        yield path


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_a_tree_moves_across_file_systems(place: Place, elsewhere: Path) -> None:
    place.write("tree/file", b"x" * 3_000_000, 0o4750)
    os.link(place.folder / "tree/file", place.folder / "tree/same")
    (place.folder / "tree/link").symlink_to("file")
    os.mkfifo(place.folder / "tree/pipe")
    place.write("tree/sub/empty")
    os.chown(place.folder / "tree/sub/empty", 1234, 1235)
    os.utime(place.folder / "tree/sub", ns=(1_000_000_001, 2_000_000_002))
    (place.folder / "tree/sub").chmod(0o1711)
    answer = post(place, "/files/mv", [{"src": place.path("tree"), "dest": f"{elsewhere}/a/b"}])
    assert succeeded(answer)
    assert (
        place.names(),
        [path.name for path in elsewhere.iterdir()],
        [path.name for path in (elsewhere / "a").iterdir()],
    ) == ([], ["a"], ["b"])
    moved = elsewhere / "a/b"
    assert (moved / "file").stat().st_size == 3_000_000
    assert (moved / "file").samefile(moved / "same")
    assert mode(moved / "file") == 0o4750
    assert (moved / "link").readlink() == Path("file")
    assert stat.S_ISFIFO((moved / "pipe").stat().st_mode)
    assert ((moved / "sub/empty").stat().st_uid, (moved / "sub/empty").stat().st_gid) == (1234, 1235)
    assert ((moved / "sub").stat().st_mtime_ns, mode(moved / "sub")) == (2_000_000_002, 0o1711)


def test_a_file_moves_across_file_systems(place: Place, elsewhere: Path) -> None:
    place.write("file", b"x", 0o600)
    assert succeeded(post(place, "/files/mv", [{"src": place.path("file"), "dest": f"{elsewhere}/f"}]))
    assert ((elsewhere / "f").read_bytes(), mode(elsewhere / "f"), place.names()) == (b"x", 0o600, [])
    (elsewhere / "f").unlink()


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_a_move_that_does_not_fit_leaves_all_as_it_was(place: Place) -> None:
    disk = place.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        place.write("tree/file", b"x" * 2_000_000)
        refused(move(place, "tree", "disk/tree"), 507, "NO_SPACE")
        assert place.names() == ["disk", "tree", "tree/file"]
    finally:
        subprocess.run(["umount", disk], check=True)


def replace(place: Place, verbose: str = "true", **files: tuple[str, str]) -> httpx.Response:
    body = {place.path(name): {"old": old, "new": new} for name, (old, new) in files.items()}
    return place.http.post("/files/replace", params={"verbose": verbose}, json=body)


def test_replacing(place: Place) -> None:
    a = place.write("a", b"\xffaXbXc\r\n", 0o640)
    b = place.write("b", b"XXX")
    c = place.write("c", b"none")
    before = c.stat()
    answer = replace(place, a=("X", "é"), b=("XX", "1"), c=("X", "y"))
    assert answer.json() == {str(a): {"replacedCount": 2}, str(b): {"replacedCount": 1}, str(c): {"replacedCount": 0}}
    assert (a.read_bytes(), b.read_bytes(), mode(a)) == (b"\xffa\xc3\xa9b\xc3\xa9c\r\n", b"1X", 0o640)
    assert (c.stat().st_mtime_ns, c.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert succeeded(replace(place, "false", a=("é", "")))
    assert a.read_bytes() == b"\xffabc\r\n"


def test_replacing_through_links(place: Place) -> None:
    a = place.write("a", b"X")
    os.link(a, place.folder / "hard")
    (place.folder / "soft").symlink_to("a")
    assert succeeded(replace(place, "", soft=("X", "Y")))
    assert (place.folder / "hard").read_bytes() == b"Y"
    assert (place.folder / "soft").is_symlink()


def test_replacing_refuses_before_it_writes(place: Place) -> None:
    a = place.write("a", b"X")
    refused(replace(place, a=("X", "Y"), none=("X", "Y")), 404, "FILE_NOT_FOUND")
    refused(replace(place, a=("", "Y")), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/files/replace", {place.path("a"): {"old": 1}}), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/files/replace", {str(place.folder): {"old": "a"}}), 400, "INVALID_FILE")
    refused(post(place, "/files/replace", []), 400, "INVALID_REQUEST_BODY")
    assert a.read_bytes() == b"X"


@given(
    st.lists(st.text("ab", max_size=5).map(str.encode), max_size=8),
    st.text("ab", min_size=1, max_size=4).map(str.encode),
    st.text("abc", max_size=3).map(str.encode),
)
def test_replacing_in_any_blocks(blocks: list[bytes], old: bytes, new: bytes) -> None:
    found = list(pieces(iter(blocks), Replacement(old, new)))
    whole = b"".join(blocks)
    assert b"".join(piece for piece, _ in found) == whole.replace(old, new)
    assert sum(count for _, count in found) == whole.count(old)


def test_permissions(place: Place) -> None:
    file = place.write("file", b"x", 0o640)
    (place.folder / "link").symlink_to("file")
    assert succeeded(post(place, "/files/permissions", {str(file): {"owner": "", "group": None, "mode": 0}}))
    assert mode(file) == 0o640
    assert succeeded(post(place, "/files/permissions", {place.path("link"): {"mode": 700}}))
    assert mode(file) == 0o700


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_owners_by_name_and_number(place: Place) -> None:
    file = place.write("file")
    assert succeeded(post(place, "/files/permissions", {str(file): {"owner": "4321", "group": "daemon"}}))
    assert (file.stat().st_uid, file.stat().st_gid) == (4321, 1)


def test_permissions_refuse_before_they_change(place: Place) -> None:
    file = place.write("file", b"", 0o640)

    def change(**second: Any) -> httpx.Response:
        return post(place, "/files/permissions", {str(file): {"mode": 600}, place.path("second"): second})

    refused(change(mode=600), 404, "FILE_NOT_FOUND")
    place.write("second")
    for second in ({"mode": 888}, {"mode": "600"}, {"mode": -7}, {"owner": "no-such-user"}, {"mode": 77777}):
        refused(change(**second), 400, "INVALID_REQUEST_BODY")
    assert mode(file) == 0o640


def test_deleting_files(place: Place) -> None:
    target = place.write("target")
    (place.folder / "link").symlink_to("target")
    (place.folder / "dangling").symlink_to("nowhere")
    os.mkfifo(place.folder / "pipe")
    (place.folder / "folder").mkdir()
    names = ("link", "dangling", "pipe", "none", "target/below")
    assert succeeded(place.http.delete("/files", params=[("path", place.path(name)) for name in names]))
    assert place.names() == ["folder", "target"]
    refused(place.http.delete("/files", params={"path": place.path("folder")}), 400, "INVALID_FILE")
    assert succeeded(place.http.delete("/files"))
    assert target.exists()


def test_making_directories(place: Place) -> None:
    (place.folder / "old").mkdir(mode=0o750)
    place.write("file")
    body = {place.path("old"): {"mode": 777}, place.path("a/b"): {"mode": 700}, place.path("c"): None}
    assert succeeded(post(place, "/directories", body))
    assert mode(place.folder / "old") == 0o750
    assert mode(place.folder / "a/b") == 0o700
    assert (place.folder / "c").is_dir()
    refused(post(place, "/directories", {place.path("x"): {"mode": 888}}), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/directories", {place.path("x"): {"owner": "no-such-user"}}), 400, "INVALID_REQUEST_BODY")
    refused(post(place, "/directories", {place.path("file"): {}}), 409, "INVALID_FILE")
    refused(post(place, "/directories", {place.path("file/x"): {}}), 400, "INVALID_FILE")
    refused(post(place, "/directories", []), 400, "INVALID_REQUEST_BODY")
    assert place.names() == ["a", "a/b", "c", "file", "old"]


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_an_owner_that_cannot_be_given_leaves_no_directory(place: Place) -> None:
    refused(post(place, "/directories", {place.path("a/b"): {"owner": "root"}}), 403, "PERMISSION_DENIED")
    assert place.names() == []


def test_deleting_directories(place: Place) -> None:
    for name in ("tree/a/b/c", "tree/d", "kept/x", "file"):
        place.write(name)
    (place.folder / "tree/a/out").symlink_to(place.folder / "kept")
    (place.folder / "link").symlink_to("kept")
    place.give()
    names = ("tree", "file", "link", "none", "file/below")
    assert succeeded(place.http.delete("/directories", params=[("path", place.path(name)) for name in names]))
    assert place.names() == ["kept", "kept/x"]
    refused(place.http.delete("/directories", params={"path": "/"}), 400, "INVALID_REQUEST_BODY")
    refused(place.http.delete("/directories", params={"path": ""}), 400, "INVALID_REQUEST_BODY")


def test_a_deep_and_wide_tree_is_deleted(place: Place) -> None:
    folder = place.folder / "tree"
    for _ in range(200):
        folder /= "d"
    folder.mkdir(parents=True)
    for number in range(3000):
        (place.folder / f"tree/{number}").touch()
    place.give()
    assert succeeded(place.http.delete("/directories", params={"path": place.path("tree")}))
    assert place.names() == []


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_what_the_user_may_not_delete(place: Place) -> None:
    closed = place.folder / "tree/closed"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    refused(place.http.delete("/directories", params={"path": place.path("tree")}), 403, "PERMISSION_DENIED")
    refused(place.http.delete("/files", params={"path": f"{closed}/file"}), 403, "PERMISSION_DENIED")
    assert (closed / "file").exists()
