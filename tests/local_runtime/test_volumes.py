"""Host volumes: what is mounted, and what is refused with which code."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, below, ignore, local, plan, run

from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.requests import ClaimVolume, HostVolume, Volume
from shoal_local.root.volumes import HostVolumes
from shoal_local.run import spawn
from shoal_local.runtime import LocalRuntime


def volume(path: str | Path, target: str = "/data", *, sub_path: str | None = None, read_only: bool = False) -> Volume:
    host = HostVolume(path=str(path))
    return Volume(name="data", mount_path=target, host=host, sub_path=sub_path, read_only=read_only)


@pytest.fixture
async def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    (folder / "inner").mkdir(parents=True)
    (folder / "leaving").symlink_to("/etc")
    (folder / "inner/file").write_text("content\n")
    for path in (folder, folder / "inner"):
        path.chmod(0o777)
    return folder


@pytest.fixture
async def runtime(start: Start, isolation: str, allowed: Path) -> LocalRuntime:
    return await start(local(isolation=isolation), (str(allowed),))


@pytest.mark.parametrize(
    ("path", "sub_path", "code"),
    [
        ("{allowed}/../x", None, "VOLUME::INVALID_HOST_PATH"),
        ("{allowed}//x", None, "VOLUME::INVALID_HOST_PATH"),
        ("{allowed}/", None, "VOLUME::INVALID_HOST_PATH"),
        ("C:\\data", None, "VOLUME::INVALID_HOST_PATH"),
        ("/etc", None, "VOLUME::HOST_PATH_NOT_ALLOWED"),
        ("{allowed}x", None, "VOLUME::HOST_PATH_NOT_ALLOWED"),
        ("{allowed}/leaving", None, "VOLUME::HOST_PATH_NOT_ALLOWED"),
        ("{allowed}", "../x", "VOLUME::INVALID_SUB_PATH"),
        ("{allowed}", "/x", "VOLUME::INVALID_SUB_PATH"),
        ("{allowed}", "leaving", "VOLUME::INVALID_SUB_PATH"),
    ],
)
async def test_refused(runtime: LocalRuntime, allowed: Path, path: str, sub_path: str | None, code: str) -> None:
    wanted = plan("true", volumes=(volume(path.format(allowed=allowed), sub_path=sub_path),))
    with pytest.raises(InvalidRequest) as refused:
        await runtime.check(wanted)
    assert refused.value.code == code


async def test_other_refusals(runtime: LocalRuntime, allowed: Path) -> None:
    cases = {
        "VOLUME::DUPLICATE_NAME": (volume(allowed, "/a"), volume(allowed, "/b")),
        "SANDBOX::INVALID_PARAMETER": (Volume(name="c", mount_path="/c", pvc=ClaimVolume(claim_name="c")),),
    }
    for code, volumes in cases.items():
        with pytest.raises(InvalidRequest) as refused:
            await runtime.check(plan("true", volumes=volumes))
        assert refused.value.code == code
    for target in ("/", "/proc/x", "/dev", "/a/../b"):
        with pytest.raises(InvalidRequest):
            await runtime.check(plan("true", volumes=(volume(allowed, target),)))


def test_an_empty_list_refuses_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        HostVolumes([], None).check([volume(tmp_path)])
    assert refused.value.code == "VOLUME::HOST_PATH_NOT_ALLOWED"


@pytest.mark.parametrize("target", ["/data", "/tmp/deep/data", "/root/work", "/opt", "/usr/local/data"])
async def test_mounted_where_asked(runtime: LocalRuntime, allowed: Path, target: str) -> None:
    wanted = plan(
        "sh", "-c", f"cat {target}/file; echo new >{target}/made", volumes=(volume(allowed, target, sub_path="inner"),)
    )
    await runtime.check(wanted)
    _, output = await run(runtime, wanted)
    assert output == "content\n"
    assert (allowed / "inner/made").read_text() == "new\n"


async def test_read_only(runtime: LocalRuntime, allowed: Path) -> None:
    script = "cat /data/file; mount -o remount,rw,bind /data 2>/dev/null; touch /data/x || echo refused"
    _, output = await run(runtime, plan("sh", "-c", script, volumes=(volume(allowed / "inner", read_only=True),)))
    assert (output.splitlines()[0], output.splitlines()[-1]) == ("content", "refused")
    assert (allowed / "inner/file").read_text() == "content\n"
    assert not (allowed / "inner/x").exists()


async def test_a_file_can_be_mounted(runtime: LocalRuntime, allowed: Path) -> None:
    _, output = await run(runtime, plan("cat", "/etc/given", volumes=(volume(allowed / "inner/file", "/etc/given"),)))
    assert output == "content\n"


async def test_a_missing_directory_is_made(runtime: LocalRuntime, allowed: Path) -> None:
    _, output = await run(
        runtime, plan("sh", "-c", "touch /data/x && echo ok", volumes=(volume(allowed / "new/deep"),))
    )
    assert output == "ok\n"
    assert (allowed / "new/deep/x").exists()


async def test_a_symlink_swapped_in_is_noticed(
    runtime: LocalRuntime, allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last check and the mount, somebody replaces the directory by a way out."""
    real = spawn.start

    def swapping(*args: object) -> object:
        (allowed / "inner").rename(allowed / "moved")
        (allowed / "inner").symlink_to("/etc")
        return real(*args)  # type: ignore[arg-type]  # handed through

    monkeypatch.setattr("shoal_local.run.maker.start", swapping)
    wanted = plan("cat", "/data/passwd", volumes=(volume(allowed / "inner"),))
    with pytest.raises(EngineFailure, match="no longer what it was"):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)


async def test_deleting_keeps_the_volume(runtime: LocalRuntime, allowed: Path) -> None:
    wanted = plan("sleep", "1000", volumes=(volume(allowed),))
    await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)
    assert sorted(path.name for path in below(allowed, "*")) == ["file", "inner", "leaving"]
    assert (allowed / "inner/file").read_text() == "content\n"
