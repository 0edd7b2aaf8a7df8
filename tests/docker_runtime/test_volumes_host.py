"""``host`` volumes: what is allowed, through which links, and what a sandbox then finds."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.docker_runtime.one_container import output, started_engine

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import HostVolume, Volume
from shoal_docker.volumes import paths
from shoal_docker.volumes.host import HostPaths


def volume(
    path: Path | str, sub_path: str | None = None, *, mount_path: str = "/data", read_only: bool = False
) -> Volume:
    return Volume(
        name="v", mount_path=mount_path, sub_path=sub_path, read_only=read_only, host=HostVolume(path=str(path))
    )


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


def source(hosts: HostPaths, asked: Volume) -> str:
    hosts.check(asked)
    return str(hosts.mount(asked)["Source"])


def refused(hosts: HostPaths, asked: Volume, code: str = "VOLUME::HOST_PATH_NOT_ALLOWED") -> str:
    with pytest.raises(InvalidRequest) as caught:
        source(hosts, asked)
    assert caught.value.code == code
    return caught.value.message


def test_an_allowed_path_and_what_is_below(allowed: Path) -> None:
    hosts = HostPaths([f"{allowed}/"])
    assert source(hosts, volume(allowed)) == str(allowed)
    assert source(hosts, volume(allowed / "a" / "b")) == str(allowed / "a" / "b")
    assert source(hosts, volume(allowed, "c//./d")) == str(allowed / "c" / "d")
    assert (allowed / "c" / "d").is_dir()


def test_a_file_is_fine(allowed: Path) -> None:
    (allowed / "file").write_text("x")
    assert source(HostPaths([str(allowed)]), volume(allowed, "file")) == str(allowed / "file")
    refused(HostPaths([str(allowed)]), volume(allowed, "file/below"))


def test_nothing_is_allowed_by_default(allowed: Path) -> None:
    refused(HostPaths([]), volume(allowed))
    refused(HostPaths([""]), volume(allowed))


def test_a_name_that_only_begins_alike(allowed: Path) -> None:
    refused(HostPaths([str(allowed)]), volume(f"{allowed}-not"))
    assert not Path(f"{allowed}-not").exists()


def test_links_that_lead_out(allowed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (allowed / "link").symlink_to(outside)
    (allowed / "deep").mkdir()
    (allowed / "deep" / "up").symlink_to("../../outside")
    hosts = HostPaths([str(allowed)])
    for asked in (
        volume(allowed / "link"),
        volume(allowed, "link"),
        volume(allowed, "link/new"),
        volume(allowed, "deep/up"),
    ):
        assert str(outside) not in refused(hosts, asked)
    assert list(outside.iterdir()) == []


def test_a_sub_path_stays_in_its_own_volume(allowed: Path) -> None:
    """Also where the link leads to another allowed path."""
    (allowed / "mine").mkdir()
    (allowed / "theirs").mkdir()
    (allowed / "mine" / "link").symlink_to(allowed / "theirs")
    refused(HostPaths([str(allowed)]), volume(allowed / "mine", "link"))


def test_links_inside_and_links_that_are_allowed(allowed: Path, tmp_path: Path) -> None:
    (allowed / "real").mkdir()
    (allowed / "link").symlink_to("real")
    (tmp_path / "alias").symlink_to(allowed)
    assert source(HostPaths([str(allowed)]), volume(allowed / "link")) == str(allowed / "real")
    assert source(HostPaths([str(tmp_path / "alias")]), volume(tmp_path / "alias" / "real")) == str(allowed / "real")


def test_a_link_turned_round_after_the_check(allowed: Path, tmp_path: Path) -> None:
    """Known weakness of opensandbox-server: it checks a path and mounts what that path is later."""
    (allowed / "real").mkdir()
    (allowed / "link").symlink_to("real")
    mounted = source(HostPaths([str(allowed)]), volume(allowed / "link"))
    (allowed / "link").unlink()
    (allowed / "link").symlink_to("/etc")
    assert mounted == str(allowed / "real")


def test_a_directory_swapped_for_a_link_between_resolving_and_walking(allowed: Path) -> None:
    """What stands at the resolved path is looked at without following links."""
    resolved = paths.resolved(str(allowed / "a" / "b"))
    (allowed / "a").symlink_to("/etc")
    with pytest.raises(paths.Unsafe):
        paths.opened(resolved)
    assert not Path("/etc/b").exists()


def test_no_room_for_a_directory(allowed: Path) -> None:
    with pytest.raises(EngineFailure) as caught:
        source(HostPaths(["/proc"]), volume("/proc/shoal-test"))
    assert caught.value.code == "VOLUME::HOST_PATH_CREATE_FAILED"


def test_an_engine_with_other_files(allowed: Path) -> None:
    """Known weakness of opensandbox-server: directories for a remote engine are made on the server's machine."""
    hosts = HostPaths(["/srv/shoal-elsewhere", "C:\\data"])
    hosts.shared = False
    assert source(hosts, volume("/srv/shoal-elsewhere")) == "/srv/shoal-elsewhere"
    assert not Path("/srv/shoal-elsewhere").exists()
    assert "none below" in refused(hosts, volume("/srv/shoal-elsewhere/a"))
    refused(hosts, volume("/srv/shoal-elsewhere", "a"))
    hosts.shared = True
    assert source(hosts, volume("C:\\data")) == "C:\\data"
    refused(hosts, volume("C:\\data\\a"))


def test_a_null_byte(allowed: Path) -> None:
    refused(HostPaths([str(allowed)]), volume(f"{allowed}/a\0b"), "VOLUME::INVALID_HOST_PATH")


@given(st.lists(st.sampled_from(["a", "link", "out", "loop", ".", "x y", "ü:"]), min_size=1, max_size=6))
def test_no_sub_path_ever_leads_out(parts: list[str]) -> None:
    """Whatever is mounted lies, once resolved, in the volume."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "top"
        (top / "a" / "a").mkdir(parents=True)
        (top / "a" / "link").symlink_to("a")
        (top / "link").symlink_to(top / "a")
        (top / "out").symlink_to(folder)
        (top / "a" / "out").symlink_to("../../..")
        (top / "loop").symlink_to("loop")
        try:
            found = source(HostPaths([str(top)]), volume(top, "/".join(parts)))
        except InvalidRequest as error:
            assert error.code == "VOLUME::HOST_PATH_NOT_ALLOWED"
        else:
            assert Path(found).resolve().is_relative_to(top.resolve())
            assert Path(found) == Path(found).resolve()
        assert list(Path(folder).iterdir()) == [top]


@pytest.mark.needs("docker")
async def test_in_a_container(allowed: Path) -> None:
    """Read-write and read-only; and known weakness of opensandbox-server: a colon in a path ends as 500."""
    hosts = HostPaths([str(allowed)])
    both = [volume(allowed, "a:b"), volume(allowed, "a:b", mount_path="/ro:x", read_only=True)]
    script = "exec 2>&1; echo here > /data/f; cat /ro:x/f; echo no > /ro:x/g || echo read-only"
    async with started_engine() as engine:
        printed = await output(engine, ["sh", "-c", script], {"Mounts": [hosts.mount(each) for each in both]})
    assert (allowed / "a:b" / "f").read_text() == "here\n"
    assert printed.splitlines()[0] == "here"
    assert printed.splitlines()[-1] == "read-only"
