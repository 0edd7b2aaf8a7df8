"""Uploads to the real program: what is written, what is refused, and that nothing half-done is ever seen."""

from __future__ import annotations

import os
import random
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.files.forms import BOUNDARY, END, TYPE, metadata, part, send, upload
from tests.agent.files.place import Place, refused
from tests.agent.program import StartAgent

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 9_000_001])
@pytest.mark.parametrize("chunked", [False, True])
def test_content_of_any_size(place: Place, size: int, chunked: bool) -> None:
    content = random.Random(size).randbytes(size)
    body = metadata(place.path("new"), mode=640) + part("file", content) + END

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 70_001):
            yield body[at : at + 70_001]

    answer = place.http.post("/files/upload", content=pieces() if chunked else body, headers=TYPE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (place.folder / "new").read_bytes() == content
    assert mode(place.folder / "new") == 0o640
    assert place.names() == ["new"]


def test_a_new_file_has_the_mode_that_the_umask_leaves(place: Place) -> None:
    assert upload(place, place.path("a/b/new"), b"x", owner=None, group=None).status_code == 200
    umask = int(Path(f"/proc/{place.agent.pid}/status").read_text().partition("Umask:")[2].split()[0], 8)
    assert mode(place.folder / "a/b/new") == 0o777 & ~umask
    assert mode(place.folder / "a") == 0o777 & ~umask
    assert (place.folder / "a/b/new").stat().st_uid == place.uid


def test_a_file_keeps_its_mode_and_gets_another_if_asked(place: Place) -> None:
    old = place.write("old", b"longer than the new content", 0o600)
    assert upload(place, str(old), b"new").status_code == 200
    assert (old.read_bytes(), mode(old), old.stat().st_uid) == (b"new", 0o600, place.uid)
    assert upload(place, str(old), b"newer", mode=755).status_code == 200
    assert (old.read_bytes(), mode(old)) == (b"newer", 0o755)


def test_links_are_written_through(place: Place) -> None:
    target = place.write("target", b"old", 0o600)
    (place.folder / "link").symlink_to("target")
    (place.folder / "dangling").symlink_to("sub/made")
    assert upload(place, place.path("link"), b"new").status_code == 200
    assert upload(place, place.path("dangling"), b"made").status_code == 200
    assert (target.read_bytes(), (place.folder / "link").is_symlink()) == (b"new", True)
    assert (place.folder / "sub/made").read_bytes() == b"made"


def test_hard_links_stay_one_file(place: Place) -> None:
    old = place.write("old", b"long old content")
    os.link(old, place.folder / "other")
    assert upload(place, str(old), b"new").status_code == 200
    assert (place.folder / "other").read_bytes() == b"new"
    assert place.names() == ["old", "other"]


def test_extended_attributes_stay(place: Place) -> None:
    old = place.write("old", b"old")
    try:
        os.setxattr(old, "user.note", b"kept")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    assert upload(place, str(old), b"new").status_code == 200
    assert (old.read_bytes(), os.getxattr(old, "user.note")) == (b"new", b"kept")


def test_a_device_is_written_to(place: Place) -> None:
    assert upload(place, "/dev/null", b"gone").status_code == 200
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_several_files_in_any_order(place: Place) -> None:
    names = ("a", "b", "c")
    described = [metadata(place.path(name)) for name in names]
    contents = [part("file", name.encode() * 5) for name in names]
    ignored = part("file", b"no file", filename=None) + part("note", b"x") + part("file", b"x", filename="")
    for order in (
        [*described, *contents],
        [*contents, *described],
        [contents[0], described[0], ignored, described[1], contents[1], contents[2], described[2]],
    ):
        assert send(place, *order).status_code == 200
        assert [(place.folder / name).read_bytes() for name in names] == [b"aaaaa", b"bbbbb", b"ccccc"]
        for name in names:
            (place.folder / name).unlink()
    assert place.names() == []


def test_more_files_than_may_be_open(place: Place) -> None:
    parts = [metadata(place.path(f"f{n}")) + part("file", b"%d" % n) for n in range(1500)]
    assert send(place, *parts).status_code == 200
    assert sorted(int(path.read_bytes()) for path in place.folder.iterdir()) == list(range(1500))
    assert len(list(Path(f"/proc/{place.agent.pid}/fd").iterdir())) < 100


def test_the_first_error_stops_and_earlier_files_stay(place: Place) -> None:
    (place.folder / "d").mkdir()
    names = ("a", "d", "c")
    answer = send(place, *(metadata(place.path(name)) + part("file", b"x") for name in names))
    refused(answer, 400, "INVALID_FILE")
    assert place.names() == ["a", "d"]


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "INVALID_FILE_METADATA"),
        ([b"m"], "INVALID_FILE_CONTENT"),
        ([b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", b"f"], "INVALID_FILE"),
        ([b"m", b"m", b"f"], "INVALID_FILE"),
        ([b"m", b"f", part("metadata", b"{bad"), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b"[]"), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b"{}"), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "/tmp/x", "mode": "644"}'), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "/tmp/x", "mode": 888}'), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "/tmp/x", "mode": -1}'), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "/tmp/x", "owner": "no-such-user"}'), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "/tmp/x/"}'), b"f"], "INVALID_FILE_METADATA"),
        ([b"m", b"f", part("metadata", b'{"path": "$NO_SUCH/x"}'), b"f"], "INVALID_FILE_METADATA"),
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(place: Place, parts: list[bytes], code: str) -> None:
    stands_for = {b"m": metadata(place.path("new")), b"f": part("file", b"x")}
    refused(send(place, *(stands_for.get(each, each) for each in parts)), 400, code)
    assert place.names() == []


def test_a_body_that_is_no_form(place: Place) -> None:
    refused(place.http.post("/files/upload", content=b"garbage", headers=TYPE), 400, "INVALID_FILE")
    refused(place.http.post("/files/upload", content=b"{}"), 400, "INVALID_FILE")
    truncated = metadata(place.path("new")) + part("file", b"x")
    refused(place.http.post("/files/upload", content=truncated, headers=TYPE), 400, "INVALID_FILE")
    assert place.names() == []


def test_places_that_take_no_file(place: Place) -> None:
    place.write("file", b"old")
    os.mkfifo(place.folder / "pipe")
    refused(upload(place, str(place.folder), b"x"), 400, "INVALID_FILE")
    refused(upload(place, place.path("file/below"), b"x"), 400, "INVALID_FILE")
    refused(upload(place, place.path("pipe"), b"x"), 400, "INVALID_FILE")
    (place.folder / "loop").symlink_to("loop")
    refused(upload(place, place.path("loop"), b"x"), 400, "INVALID_FILE")
    assert place.names() == ["file", "loop", "pipe"]


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_what_the_user_may_not_write(place: Place) -> None:
    refused(upload(place, "/etc/new", b"x"), 403, "PERMISSION_DENIED")
    refused(upload(place, "/etc/passwd", b"x"), 403, "PERMISSION_DENIED")
    kept = place.write("read-only", b"kept", 0o444)
    refused(upload(place, str(kept), b"x"), 403, "PERMISSION_DENIED")
    for name in ("new", "a/b/new"):
        refused(upload(place, place.path(name), b"x", owner="root"), 403, "PERMISSION_DENIED")
    assert (kept.read_bytes(), place.names()) == (b"kept", ["read-only"])


@pytest.mark.parametrize("place", ["user"], indirect=True)
def test_a_writable_file_of_another_in_a_folder_of_another(place: Place) -> None:
    folder = place.folder / "closed"
    folder.mkdir(mode=0o755)
    file = folder / "file"
    file.write_bytes(b"long old content")
    file.chmod(0o666)
    assert upload(place, str(file), b"new").status_code == 200
    assert (file.read_bytes(), file.stat().st_uid, mode(file)) == (b"new", os.geteuid(), 0o666)
    refused(upload(place, f"{folder}/new", b"x"), 403, "PERMISSION_DENIED")


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_owners_by_name_and_number(place: Place) -> None:
    assert upload(place, place.path("a/new"), b"x", owner="1234", group="daemon", mode=600).status_code == 200
    for name in ("a", "a/new"):
        status = (place.folder / name).stat()
        assert (status.st_uid, status.st_gid) == (1234, 1), name
    assert mode(place.folder / "a/new") == 0o600
    assert upload(place, place.path("a/new"), b"y").status_code == 200
    assert (place.folder / "a/new").stat().st_uid == 1234


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_a_file_that_is_a_mount_point(place: Place) -> None:
    source, target = place.write("source", b"long old content"), place.write("target")
    if subprocess.run(["mount", "--bind", source, target], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        assert upload(place, str(target), b"new").status_code == 200
        assert source.read_bytes() == b"new"
        assert place.names() == ["source", "target"]
    finally:
        subprocess.run(["umount", target], check=True)


@as_root
@pytest.mark.parametrize("place", ["own"], indirect=True)
def test_a_full_disk(place: Place) -> None:
    disk = place.folder / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=False).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        (disk / "old").write_bytes(b"old")
        for name in ("old", "new"):
            refused(upload(place, f"{disk}/{name}", b"x" * 4_000_000), 507, "NO_SPACE")
        assert (place.names(), (disk / "old").read_bytes()) == (["disk", "disk/old"], b"old")
        assert upload(place, f"{disk}/new", b"x" * 900_000).status_code == 200
    finally:
        subprocess.run(["umount", disk], check=True)


def begin(place: Place, path: str, content: bytes) -> socket.socket:
    """An upload that stops in the middle of its file."""
    head = (
        f"POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        "Content-Length: 100000000\r\n\r\n"
    )
    connection = place.agent.connect()
    connection.sendall(head.encode() + metadata(path) + part("file", content))
    return connection


def written(place: Place) -> int:
    """Bytes that the agent has written in all."""
    text = Path(f"/proc/{place.agent.pid}/io").read_text()
    return int(text.partition("wchar:")[2].split()[0])


def test_a_file_is_never_seen_half_written(place: Place) -> None:
    old = place.write("old", b"old")
    before = written(place)
    with begin(place, str(old), b"x" * 8_000_000):
        while written(place) < before + 4_000_000:
            time.sleep(0.01)
        assert (old.read_bytes(), place.names()) == (b"old", ["old"])
    new = place.path("new")
    before = written(place)
    with begin(place, new, b"x" * 8_000_000):
        while written(place) < before + 4_000_000:
            time.sleep(0.01)
        assert place.names() == ["old"]
    while len(list(Path(f"/proc/{place.agent.pid}/fd").iterdir())) > 60 or _deleted(place):
        time.sleep(0.01)  # the agent notices that the clients are gone
    assert place.names() == ["old"]


def _deleted(place: Place) -> bool:
    links = []
    for descriptor in Path(f"/proc/{place.agent.pid}/fd").iterdir():
        try:
            links.append(descriptor.readlink())
        except FileNotFoundError:
            continue
    return any(str(link).endswith("(deleted)") for link in links)


def test_a_killed_agent_leaves_nothing(start_agent: StartAgent) -> None:
    place = Place(start_agent(), None)
    with begin(place, place.path("new"), b"x" * 8_000_000):
        while written(place) < 2_000_000:
            time.sleep(0.01)
        place.agent.process.send_signal(signal.SIGKILL)
        place.agent.process.wait()
    assert place.names() == []
    place.http.close()


def test_memory_stays_flat(place: Place) -> None:
    block = os.urandom(1 << 20)

    def pieces() -> Iterator[bytes]:
        yield metadata(place.path("big")) + part("file", b"")[:-2]
        for _ in range(300):
            yield block
        yield b"\r\n" + END

    upload(place, place.path("small"), b"x" * 3_000_000)
    before = place.agent.memory()
    assert place.http.post("/files/upload", content=pieces(), headers=TYPE).status_code == 200
    assert (place.folder / "big").stat().st_size == 300 << 20
    received = 0
    with place.http.stream("GET", "/files/download", params={"path": place.path("big")}) as answer:
        for data in answer.iter_raw(1 << 20):
            received += len(data)
    assert received == 300 << 20
    assert place.agent.memory() - before < 10_000_000
    (place.folder / "big").unlink()
