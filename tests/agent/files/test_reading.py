"""Info, search, lists and downloads of the real program."""

from __future__ import annotations

import datetime
import json
import os
import pwd
from pathlib import Path

import httpx
import pytest
from tests.agent.files.place import Place, refused
from tests.agent.program import AgentProcess


def get(place: Place, route: str, /, **query: str) -> httpx.Response:
    return place.http.get(route, params=query)


def test_info_of_every_kind(place: Place) -> None:
    place.write("file", b"12345", 0o4640)
    (place.folder / "link").symlink_to("file")
    (place.folder / "dangling").symlink_to("nowhere")
    os.mkfifo(place.folder / "pipe")
    names = ["file", "link", "dangling", "pipe", "."]
    answer = place.http.get("/files/info", params=[("path", place.path(name)) for name in names])
    found = answer.json()
    assert list(found) == [place.path(name) for name in names]
    assert [info["type"] for info in found.values()] == ["file", "symlink", "symlink", "other", "directory"]
    file = found[place.path("file")]
    owner = pwd.getpwuid(place.uid).pw_name if place.uid == os.geteuid() else str(place.uid)
    assert (file["path"], file["size"], file["mode"]) == (place.path("file"), 5, 640)
    assert file["owner"] in (owner, _name(place.uid))
    for moment in ("modified_at", "created_at"):
        parsed = datetime.datetime.fromisoformat(file[moment][:26] + "+00:00")
        assert abs(parsed.timestamp() - (place.folder / "file").stat().st_mtime) < 5
    assert found[place.path(".")]["path"] == str(place.folder)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def test_info_of_nothing_and_of_what_is_missing(place: Place) -> None:
    assert place.http.get("/files/info").json() == {}
    place.write("file")
    refused(get(place, "/files/info", path=place.path("none")), 404, "FILE_NOT_FOUND")
    refused(get(place, "/files/info", path=place.path("file/below")), 404, "FILE_NOT_FOUND")


def test_a_name_that_is_no_utf8(place: Place) -> None:
    (place.folder / os.fsdecode(b"\xff\xfe")).touch()
    assert [info["path"] for info in get(place, "/directories/list", path=str(place.folder)).json()] == [
        f"{place.folder}/\ufffd\ufffd"
    ]
    assert place.http.get(f"/files/download?path={place.folder}/%FF%FE").status_code == 200


def test_paths_expand_from_the_agents_environment(place: Place) -> None:
    place.write("file", b"x")
    name = place.folder.name
    for path in (f"~/{name}/file", f"$HOME/{name}/file", f"${{HOME}}/{name}/../{name}//./file", f"{name}/file"):
        assert get(place, "/files/download", path=path).content == b"x"
    refused(get(place, "/files/download", path="$NOPE/x"), 400, "INVALID_REQUEST_BODY")
    refused(get(place, "/files/download", path="/\0"), 400, "INVALID_REQUEST_BODY")


def test_search_goes_on_where_it_may_not_read(place: Place) -> None:
    for name in ("z", "a", "sub/b.txt", "sub/deep/c.txt", ".hidden"):
        place.write(name)
    (place.folder / "loop").symlink_to(place.folder)
    closed = place.folder / "closed"
    closed.mkdir()
    closed.chmod(0)
    found = get(place, "/files/search", path=str(place.folder)).json()
    closed.chmod(0o700)
    assert [os.path.relpath(info["path"], place.folder) for info in found] == [
        ".hidden", "a", "loop", "sub/b.txt", "sub/deep/c.txt", "z",
    ]  # fmt: skip
    found = get(place, "/files/search", path=str(place.folder), pattern="{b,c}.t?t").json()
    assert [Path(info["path"]).name for info in found] == ["b.txt", "c.txt"]
    assert get(place, "/files/search", path=place.path("a"), pattern="*").json()[0]["path"] == place.path("a")


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 1000])
def test_lists_of_any_length(place: Place, count: int) -> None:
    names = sorted(f"f{number}" for number in range(count))
    for name in names:
        (place.folder / name).touch()
    for route in ("/files/search", "/directories/list"):
        answer = get(place, route, path=str(place.folder))
        assert [Path(info["path"]).name for info in answer.json()] == names
        assert ("content-length" in answer.headers) == (count < 200)


def test_a_long_search_costs_no_memory_and_holds_nobody_up(place: Place) -> None:
    for folder in range(20):
        for number in range(1000):
            place.write(f"d{folder}/{'x' * 100}{number}")
    before = place.agent.memory()
    with place.http.stream("GET", "/files/search", params={"path": str(place.folder)}) as answer:
        pieces = answer.iter_raw()
        text = next(pieces)
        with place.agent.client() as other:
            assert other.get("/ping").status_code == 200
        text += b"".join(pieces)
    assert len(json.loads(text)) == 20_000
    assert place.agent.memory() - before < 5_000_000


def test_search_refuses(place: Place) -> None:
    refused(get(place, "/files/search", path=str(place.folder), pattern="["), 400, "INVALID_REQUEST_BODY")
    refused(get(place, "/files/search"), 400, "MISSING_QUERY")
    (place.folder / "dangling").symlink_to("nowhere")
    for name in ("none", "dangling"):
        refused(get(place, "/files/search", path=place.path(name)), 404, "FILE_NOT_FOUND")


def test_lists(place: Place) -> None:
    for name in ("b/c/d", "a"):
        place.write(name)

    def names(depth: str) -> list[str]:
        answer = get(place, "/directories/list", path=str(place.folder), depth=depth)
        return [os.path.relpath(info["path"], place.folder) for info in answer.json()]

    assert names("") == names("1") == ["a", "b"]
    assert names("2") == ["a", "b", "b/c"]
    assert names("9") == ["a", "b", "b/c", "b/c/d"]
    assert get(place, "/directories/list", path=str(place.folder), depth="0").text == "[]"
    for depth in ("-1", "x", "1.5"):
        refused(get(place, "/directories/list", path=str(place.folder), depth=depth), 400, "INVALID_REQUEST_BODY")
    (place.folder / "link").symlink_to("b")
    for name in ("a", "link"):
        refused(get(place, "/directories/list", path=place.path(name)), 400, "INVALID_REQUEST_BODY")


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
def test_downloads_of_any_size(place: Place, size: int) -> None:
    content = os.urandom(size)
    place.write("file", content)
    answer = get(place, "/files/download", path=place.path("file"))
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="file"'
    assert answer.headers["content-length"] == str(size)
    for header, part in (("bytes=1-", content[1:]), ("bytes=-5", content[-5:]), ("bytes=0-9", content[:10])):
        answer = place.http.get("/files/download", params={"path": place.path("file")}, headers={"Range": header})
        if part:
            assert (answer.status_code, answer.content) == (206, part)
            assert answer.headers["content-range"].endswith(f"/{size}")
        else:
            assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}")
            assert answer.json()["message"]


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("a b", 'attachment; filename="a b"'),
        ('a"b\\', 'attachment; filename="a\\"b\\\\"'),
        ("é", "attachment; filename=\"%C3%A9\"; filename*=UTF-8''%C3%A9"),
        ("a\nb", "attachment; filename=\"a%0Ab\"; filename*=UTF-8''a%0Ab"),
    ],
)
def test_names_of_downloads(place: Place, name: str, disposition: str) -> None:
    place.write(name)
    answer = get(place, "/files/download", path=place.path(name))
    assert answer.headers["content-disposition"] == disposition


def test_conditions_by_date(place: Place) -> None:
    place.write("file", b"x")
    query = {"path": place.path("file")}
    changed = place.http.get("/files/download", params=query).headers["last-modified"]
    answer = place.http.get("/files/download", params=query, headers={"If-Modified-Since": changed})
    assert (answer.status_code, answer.content) == (304, b"")
    old = "Mon, 01 Jan 2001 00:00:00 GMT"
    assert place.http.get("/files/download", params=query, headers={"If-Modified-Since": old}).content == b"x"
    assert place.http.get("/files/download", params=query, headers={"If-Unmodified-Since": old}).status_code == 412
    both = {"Range": "bytes=0-0", "If-Range": old}
    assert place.http.get("/files/download", params=query, headers=both).status_code == 200


def test_what_is_no_regular_file(place: Place) -> None:
    os.mkfifo(place.folder / "pipe")
    refused(get(place, "/files/download", path=str(place.folder)), 400, "INVALID_FILE")
    refused(get(place, "/files/download", path=place.path("pipe")), 400, "INVALID_FILE")
    refused(get(place, "/files/download", path="/dev/zero"), 400, "INVALID_FILE")
    refused(get(place, "/files/download", path=place.path("none")), 404, "FILE_NOT_FOUND")
    refused(get(place, "/files/download"), 400, "MISSING_QUERY")


def test_files_without_a_size_of_their_own(place: Place) -> None:
    answer = get(place, "/files/download", path="/proc/version")
    assert answer.text == Path("/proc/version").read_text()
    large = Path("/proc/kallsyms")  # megabytes where the kernel shows it
    if not large.exists() or len(large.read_bytes()) < 1_000_001:
        return
    answer = get(place, "/files/download", path=str(large))
    assert len(answer.content) > 1_000_000
    assert "content-length" not in answer.headers


def test_lines(place: Place) -> None:
    place.write("file", b"one\r\ntwo\n\nfour\r")

    def lines(**query: str) -> httpx.Response:
        return get(place, "/files/download", path=place.path("file"), **query)

    assert lines(offset="1").text == "one\ntwo\n\nfour"
    assert lines(offset="2", limit="2").text == "two\n"
    assert lines(limit="1").headers["content-type"] == "text/plain; charset=utf-8"
    assert lines(offset="", limit="").content == b"one\r\ntwo\n\nfour\r"
    for query in ({"offset": "0"}, {"limit": "-1"}, {"limit": "1.5"}, {"offset": "x"}):
        refused(lines(**query), 400, "INVALID_REQUEST_BODY")
    answer = place.http.get(
        "/files/download", params={"path": place.path("file"), "limit": "1"}, headers={"Range": "bytes=0-1"}
    )
    refused(answer, 400, "INVALID_REQUEST_BODY")


def test_lines_of_a_large_file(place: Place) -> None:
    content = b"".join(b"line %d\r\n" % number for number in range(300_000))
    place.write("file", content)
    answer = get(place, "/files/download", path=place.path("file"), offset="2", limit="299998")
    assert answer.content == content.replace(b"\r\n", b"\n")[7:-13]
    assert get(place, "/files/download", path=place.path("file"), offset="299999").text == "line 299998\nline 299999"


def test_what_the_user_may_not_read(user_agent: AgentProcess) -> None:
    with user_agent.client() as http:
        refused(http.get("/directories/list", params={"path": "/root"}), 403, "PERMISSION_DENIED")
        refused(http.get("/files/search", params={"path": "/root"}), 403, "PERMISSION_DENIED")
        refused(http.get("/files/download", params={"path": "/etc/shadow"}), 403, "PERMISSION_DENIED")
        refused(http.get("/files/info", params={"path": "/root/x"}), 403, "PERMISSION_DENIED")
