"""Images: names, unpacking, and what a hostile archive may not do."""

from __future__ import annotations

import asyncio
import io
import os
import re
import tomllib
from pathlib import Path

import pytest
from tests.local_runtime.layouts import docker_archive, layer, layout, tools
from tests.local_runtime.machine import ROOT, Start, ignore, let_pass, local, plan, run

from shoal.cli.init_config import example
from shoal.errors import ConfigError, EngineFailure, InvalidRequest
from shoal_local.image.bounds import Bounds
from shoal_local.image.cache import RootFsCache
from shoal_local.image.catalog import Catalog, Kind, Source, parse
from shoal_local.image.unpack import Unpacker
from shoal_local.root.paths import enterable, resolve
from shoal_local.runtime import LocalRuntime


@pytest.fixture
async def runtime(start: Start, isolation: str, tmp_path: Path) -> LocalRuntime:
    return await start(local(isolation=isolation, image_roots=[str(tmp_path)]))


def unpack(root: Path, *layers: bytes) -> Path:
    root.mkdir(exist_ok=True)
    unpacker = Unpacker(root, None)
    for content in layers:
        unpacker.apply(io.BytesIO(content))
    unpacker.finish()
    return root


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_layers_and_whiteouts(tmp_path: Path) -> None:
    root = unpack(
        tmp_path / "root",
        layer(
            [
                ("etc/", ""),
                ("etc/old", "1"),
                ("etc/kept", "1"),
                ("var/cache/a", "1"),
                ("var/cache/b/c", "1"),
                ("bin", "->usr/bin"),
            ]
        ),
        layer(
            [
                ("etc/.wh.old", ""),
                ("var/cache/.wh..wh..opq", ""),
                ("var/cache/new", "2"),
                ("bin/sh", "2"),
                ("etc/kept", "2"),
            ]
        ),
    )
    assert tree(root) == {"etc", "etc/kept", "var", "var/cache", "var/cache/new", "bin", "usr", "usr/bin", "usr/bin/sh"}
    assert (root / "etc/kept").read_text() == "2"


def test_opaque_keeps_what_its_own_layer_brings(tmp_path: Path) -> None:
    root = unpack(
        tmp_path / "root",
        layer([("data/old/x", "1")]),
        layer([("data/sub/new", "2"), ("data/.wh..wh..opq", "")]),
    )
    assert tree(root) == {"data", "data/sub", "data/sub/new"}


def test_kinds_of_files(tmp_path: Path) -> None:
    root = unpack(
        tmp_path / "root", layer([("a", "x"), ("b", "=>a"), ("c", "->/etc/passwd"), ("dev/null", None), ("d/", "")])
    )
    assert tree(root) == {"a", "b", "c", "d", "dev"}
    assert (root / "a").stat().st_ino == (root / "b").stat().st_ino
    assert str((root / "c").readlink()) == "/etc/passwd"


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "a/../../escaped", "ok/../../../escaped"])
def test_paths_that_leave_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EngineFailure, match="leaves the image"):
        unpack(tmp_path / "root", layer([(name, "x")]))
    assert not list(tmp_path.rglob("escaped"))


def test_symlinks_lead_inside_only(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    entries = [("up", f"->{tmp_path / 'outside'}"), ("dots", "->../../../.."), ("up/file", "x"), ("dots/file", "y")]
    root = unpack(tmp_path / "root", layer(entries))
    assert list((tmp_path / "outside").iterdir()) == []
    assert (root / "file").read_text() == "y"
    assert (root / str(tmp_path / "outside").lstrip("/") / "file").read_text() == "x"


def test_a_symlink_is_replaced_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("safe")
    root = unpack(tmp_path / "root", layer([("link", f"->{victim}"), ("link", "evil")]))
    assert victim.read_text() == "safe"
    assert (root / "link").read_text() == "evil"


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "absent", "link"])
def test_hard_links_stay_inside(tmp_path: Path, target: str) -> None:
    with pytest.raises(EngineFailure):
        unpack(tmp_path / "root", layer([("link", "->/etc/passwd"), ("hard", f"=>{target}")]))


def test_loops_of_symlinks_end(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="symbolic links"):
        unpack(tmp_path / "root", layer([("a", "->b"), ("b", "->a"), ("a/x", "1")]))


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure):
        unpack(tmp_path / "root", layer([("a", "x" * 5000)])[:3000])


@pytest.mark.parametrize("compressed", [False, True])
def test_layout_is_unpacked_once(tmp_path: Path, compressed: bool) -> None:
    content = [layer([("a", "1")], compressed=compressed), layer([("b", "2")], compressed=compressed)]
    folder = layout(tmp_path / "image", content, Env=["A=1", "PATH=/x"], WorkingDir="/work")
    cache = _cache(tmp_path)
    first = cache.get(Source(Kind.OCI_LAYOUT, folder))
    assert (tree(first.path), first.env, first.workdir) == ({"a", "b"}, {"A": "1", "PATH": "/x"}, "/work")
    inode = first.path.stat().st_ino
    assert _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder, "app")).path.stat().st_ino == inode


@pytest.mark.parametrize("compressed", [False, True])
def test_docker_archive(tmp_path: Path, compressed: bool) -> None:
    file = docker_archive(tmp_path / "image.tar", [layer([("a", "1")], compressed=compressed)], Env=["A=1"])
    found = _cache(tmp_path).get(Source(Kind.DOCKER_ARCHIVE, file, "app:latest"))
    assert (tree(found.path), found.env) == ({"a"}, {"A": "1"})
    with pytest.raises(EngineFailure, match="app:latest"):
        _cache(tmp_path).get(Source(Kind.DOCKER_ARCHIVE, file, "other:tag"))


def test_a_changed_blob_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    content = layer([("a", "1")])
    folder = layout(tmp_path / "image", [content])
    for blob in (folder / "blobs/sha256").iterdir():
        if blob.read_bytes() == content:
            blob.write_bytes(layer([("a", "2")]))
    with pytest.raises(EngineFailure, match="digest"):
        _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_several_images_need_a_name(tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer([("a", "1")])], ref="one")
    layout(folder, [layer([("b", "1")])], ref="two")
    assert tree(_cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder, "two")).path) == {"b"}
    with pytest.raises(EngineFailure, match="several images"):
        _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder))
    with pytest.raises(EngineFailure, match="one, two"):
        _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder, "three"))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    folder = layout(tmp_path / "image", [layer([("a", "1")])], arch="riscv64")
    with pytest.raises(EngineFailure, match="linux/"):
        _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder))


def test_half_unpacked_is_swept(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    (tmp_path / "cache/.unpacking-0123/root").mkdir(parents=True)
    cache.sweep()
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("host", Source(Kind.HOST)),
        ("dir:/srv/root", Source(Kind.DIRECTORY, Path("/srv/root"))),
        ("oci-layout:/srv/image:1.2", Source(Kind.OCI_LAYOUT, Path("/srv/image"), "1.2")),
        ("docker-archive:/a.tar:name:tag", Source(Kind.DOCKER_ARCHIVE, Path("/a.tar"), "name:tag")),
    ],
)
def test_names(text: str, source: Source) -> None:
    assert parse(text) == source


def test_table_exact_then_longest_pattern(tmp_path: Path) -> None:
    table = {"python:3.11": "host", "python:*": f"dir:{tmp_path}", "*": "host"}
    catalog = Catalog(table)
    assert catalog.resolve("python:3.11").kind is Kind.HOST
    assert catalog.resolve("python:3.12").kind is Kind.DIRECTORY
    assert catalog.resolve("anything").kind is Kind.HOST


def test_bad_names_and_tables(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"local\.images\.x"):
        Catalog({"x": "docker.io/library/alpine"})
    catalog = Catalog({}, (tmp_path / "state",), ["/"])
    (tmp_path / "state/inner").mkdir(parents=True)
    for name in (
        "dir:relative",
        "dir:/no/such/place",
        "dir:/",
        f"dir:{tmp_path}",
        f"dir:{tmp_path}/state/inner",
        "oci-layout:/etc",
    ):
        with pytest.raises(InvalidRequest):
            catalog.resolve(name)


def test_resolving_inside_a_root(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "abs").symlink_to("/usr/bin")
    (tmp_path / "out").symlink_to("../../../../etc")
    assert resolve(tmp_path, "/bin/sh") == tmp_path / "usr/bin/sh"
    assert resolve(tmp_path, "abs/../lib") == tmp_path / "usr/lib"
    assert resolve(tmp_path, "out/passwd") == tmp_path / "etc/passwd"


async def test_sandboxes_share_an_image_and_not_their_changes(runtime: LocalRuntime, tmp_path: Path) -> None:
    content = layer([*tools(), ("etc/motd", "from the image\n"), ("data/", "")])
    folder = layout(tmp_path / "image", [content], Env=["FROM_IMAGE=1", "BOTH=image"], WorkingDir="/data")
    image = f"oci-layout:{folder}"
    script = "cat /etc/motd; echo $FROM_IMAGE $BOTH; ls -d $PWD; echo mine >/etc/motd; touch /made; cat /etc/motd"
    plans = [plan("sh", "-c", script, image=image, env={"BOTH": "request"}) for _ in range(6)]
    ended = await asyncio.gather(*(run(runtime, wanted) for wanted in plans))
    assert {output for _, output in ended} == {"from the image\n1 request\n/data\nmine\n"}
    assert len([path for path in (tmp_path / "local/images").iterdir() if path.is_dir()]) == 1


async def test_a_directory_as_root(runtime: LocalRuntime, tmp_path: Path) -> None:
    root = unpack(tmp_path / "rootfs", layer([*tools(), ("marker", "here\n")]))
    for path in (root, *root.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    _, output = await run(runtime, plan("sh", "-c", "cat /marker; touch /new; ls /home", image=f"dir:{root}"))
    assert output.startswith("here\n")
    assert not (root / "new").exists()


@pytest.mark.parametrize(("home", "starts_in"), [(None, "/"), ("/root/sub", "/"), ("/srv", "/srv"), ("/new", "/new")])
async def test_a_home_that_its_user_cannot_enter_is_not_where_it_starts(
    runtime: LocalRuntime, tmp_path: Path, home: str | None, starts_in: str
) -> None:
    root = unpack(tmp_path / "rootfs", layer([*tools(), ("root/", ""), ("srv/", "")]))
    let_pass(root)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)
    (root / "root").chmod(0o700 if ROOT else 0)
    env = {} if home is None else {"HOME": home}
    _, output = await run(runtime, plan("sh", "-c", "echo $PWD $HOME", image=f"dir:{root}", env=env))
    assert output == f"{starts_in} {home or '/root'}\n"


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o700, 1, 2, True),
        (0o700, 9, 2, False),
        (0o750, 9, 2, True),
        (0o705, 9, 2, False),
        (0o701, 9, 8, True),
        (0o077, 1, 2, False),
    ],
)
def test_who_may_enter(tmp_path: Path, mode: int, uid: int, gid: int, may: bool) -> None:
    place = tmp_path / "home/there"
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to("/home")
    if ROOT:
        os.chown(place, 1, 2)
    else:
        uid, gid = (os.geteuid() if uid == 1 else 0), (os.getegid() if gid == 2 else -1)
    place.chmod(mode)
    assert enterable(tmp_path, "/link/there", uid, {gid}) is may
    assert enterable(tmp_path, "/link/there/below/it", uid, {gid}) is may
    assert enterable(tmp_path, "/link/elsewhere", uid, {gid})
    place.chmod(0o700)


async def test_without_overlay_an_image_is_read_only(start: Start, isolation: str, tmp_path: Path) -> None:
    runtime = await start(local(isolation=isolation, overlay="off", image_roots=[str(tmp_path)]))
    folder = layout(tmp_path / "image", [layer([*tools(), ("srv/x", "1"), ("tmp/", "")])])
    script = "touch /srv/y || echo read-only; touch /tmp/z && echo private"
    _, output = await run(runtime, plan("sh", "-c", script, image=f"oci-layout:{folder}"))
    assert output.splitlines()[-2:] == ["read-only", "private"]


async def test_a_missing_loader_is_named(runtime: LocalRuntime, tmp_path: Path) -> None:
    only = [entry for entry in tools() if entry[0] == "bin/cat" or entry[0] == "usr/bin/cat"]
    folder = layout(tmp_path / "image", [layer([*only, ("script", "#!/no/interpreter\n")])])
    for command, reason in ((f"/{only[0][0]}", "dynamic loader"), ("/script", "interpreter /no/interpreter")):
        wanted = plan(command, image=f"oci-layout:{folder}")
        with pytest.raises(EngineFailure, match=reason):
            await runtime.create(wanted, ignore)
        await runtime.delete(wanted.id)


def _cache(tmp_path: Path, bounds: Bounds = Bounds()) -> RootFsCache:  # noqa: B008 - frozen
    (tmp_path / "cache").mkdir(exist_ok=True)
    return RootFsCache(tmp_path / "cache", None, bounds)


# --- What may be an image, and how much of one ------------------------------------------------------------------------


def test_requests_name_images_below_the_roots_only(tmp_path: Path) -> None:
    for folder in ("roots/one", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "roots/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/image.tar").touch()
    catalog = Catalog({"named": f"dir:{tmp_path}/elsewhere"}, (), [str(tmp_path / "roots")])
    assert catalog.resolve(f"dir:{tmp_path}/roots/one").path == tmp_path / "roots/one"
    assert catalog.resolve("named").path == tmp_path / "elsewhere"
    refused = (
        f"dir:{tmp_path}/elsewhere",
        f"dir:{tmp_path}/roots/link",
        f"dir:{tmp_path}/rootsx",
        f"docker-archive:{tmp_path}/elsewhere/image.tar",
        "dir:/root",
        "oci-layout:/no/such/place",
        "docker-archive:/proc/kmsg",
    )
    for name in refused:
        with pytest.raises(InvalidRequest, match="image_roots"):
            catalog.resolve(name)
        with pytest.raises(InvalidRequest, match="image_roots"):
            Catalog({}).resolve(name)


def test_what_cannot_be_looked_at_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`realpath` and `is_dir` raise for some of these."""
    catalog = Catalog({"named": f"dir:{tmp_path}/link"}, (), [str(tmp_path)])
    long = "n" * 300
    for name in (f"dir:{tmp_path}/{long}", f"docker-archive:{tmp_path}/{long}", f"oci-layout:{tmp_path}/{long}"):
        with pytest.raises(InvalidRequest, match="there is no"):
            catalog.resolve(name)
    (tmp_path / "link").symlink_to(tmp_path / "roots")

    def closed(path: object) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.readlink", closed)
    with pytest.raises(InvalidRequest, match="image_roots"):
        catalog.resolve(f"dir:{tmp_path}/link")
    with pytest.raises(InvalidRequest, match="there is no"):
        catalog.resolve("named")


def test_pipes_and_devices_are_no_archives(tmp_path: Path) -> None:
    """Opening or reading one would hold a thread for good."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="no regular file"):
        Catalog({}, (), ["/"]).resolve(f"docker-archive:{tmp_path}/pipe")
    with pytest.raises(EngineFailure, match="not a regular file"):
        _cache(tmp_path).get(Source(Kind.DOCKER_ARCHIVE, tmp_path / "pipe"))
    folder = layout(tmp_path / "image", [layer([("a", "1")])])
    for blob in (folder / "blobs/sha256").iterdir():
        blob.unlink()
        os.mkfifo(blob)
    with pytest.raises(EngineFailure, match="not a regular file"):
        _cache(tmp_path).get(Source(Kind.OCI_LAYOUT, folder))


@pytest.mark.parametrize("kind", [Kind.OCI_LAYOUT, Kind.DOCKER_ARCHIVE])
@pytest.mark.parametrize(
    ("bounds", "name"),
    [
        (Bounds(size=2_000_000), "image_max_bytes"),
        (Bounds(entries=40), "image_max_entries"),
        (Bounds(seconds=-1), "image_unpack_seconds"),
    ],
)
def test_an_image_that_is_too_much_is_refused_and_leaves_nothing(
    tmp_path: Path, kind: Kind, bounds: Bounds, name: str
) -> None:
    content = [layer([*((f"f{n}", "x") for n in range(50)), ("zeros", "0" * 4_000_000)], compressed=True)]
    path = layout(tmp_path / "i", content) if kind is Kind.OCI_LAYOUT else docker_archive(tmp_path / "i.tar", content)
    with pytest.raises(EngineFailure, match=name):
        _cache(tmp_path, bounds).get(Source(kind, path))
    assert {path.name for path in (tmp_path / "cache").iterdir()} <= {".lock"}
    assert (_cache(tmp_path).get(Source(kind, path)).path / "zeros").stat().st_size == 4_000_000


def test_a_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    with pytest.raises(EngineFailure, match="header is too large"):
        unpack(tmp_path / "root", layer([("n" * 3_000_000, "x")]))


@pytest.mark.parametrize("name", ["ubuntu", "python:3.11", 'odd"name:1'])
def test_an_unmapped_name_is_refused_with_the_line_that_maps_it(name: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        Catalog({}).resolve(name)
    line = re.search(r'add the line (".+" = "host") below', refused.value.message)
    assert line is not None
    assert Catalog(tomllib.loads(line[1])).resolve(name).kind is Kind.HOST


@pytest.mark.parametrize(
    "name", ["ubuntu", "ubuntu:22.04", "python:3.11", "node:22", "opensandbox/code-interpreter:v1"]
)
def test_the_example_configuration_maps_the_names_of_quick_starts(name: str) -> None:
    table = tomllib.loads(example("local"))["local"]["images"]
    assert Catalog(table).resolve(name).kind is Kind.HOST
