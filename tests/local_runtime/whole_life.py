"""A program, not a test: one whole life of the runtime as an ordinary user, run by test_ordinary_user.

Everything is imported before the change of user, who may not be able to read Python's own files.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import encodings.idna
import linecache
import os
import shutil
import sys
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace
from tests.local_runtime.layouts import tools
from tests.local_runtime.machine import eventually, ignore, local, plan, processes_of, run, settings

from shoal.errors import Conflict, EngineFailure
from shoal.models.requests import HostVolume, Volume
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_local.run import probe
from shoal_local.run.spawn import Method
from shoal_local.runtime import LocalRuntime

LOADED = (concurrent.futures.thread, encodings.idna, linecache)
ALL = LogQuery(tail=10_000)


def only_direct(settings: object) -> Iterator[tuple[Method, bool, bool]]:
    """Bubblewrap without unshare(1), as on a machine that allows namespaces to bubblewrap alone."""
    yield "bubblewrap", False, False


async def first_life(base: Path, runtime: LocalRuntime, method: str) -> str:
    """A sandbox that looks around and ends."""
    host = HostVolume(path=str(base / "shared"))
    volumes = () if method == "none" else (Volume(name="v", mount_path="/tmp/v", host=host),)
    look = f"cat /etc/shadow; ls {base}/local {base}/store.db"
    script = f"cat /tmp/v/file; id -u; touch ~/mine && echo home; {look}; exit 3"
    wanted = plan("sh", "-c", script, env={"LD_LIBRARY_PATH": "/nowhere"}, volumes=volumes)
    await runtime.check(wanted)
    ended, output = await run(runtime, wanted)
    assert "exit code 3" in (ended.message or ""), (ended, output)
    if method != "none":
        assert output.splitlines()[:3] == ["shared", "0", "home"], output
        assert "sandboxes" not in output, output
        assert "denied" in output, output
    return wanted.id


async def second_life(runtime: LocalRuntime) -> tuple[str, str]:
    """A sandbox that resists removal, paused by signals."""
    wanted = plan("sh", "-c", "mkdir -p ~/a/b; chmod 000 ~/a; while :; do echo x; sleep 0.01; done")
    await runtime.create(wanted, ignore)
    assert (await runtime.pause(wanted.id)).phase is Phase.PAUSED
    before = await runtime.logs(wanted.id, ALL)
    await asyncio.sleep(0.2)
    assert await runtime.logs(wanted.id, ALL) == before
    return wanted.id, before


async def third_life(runtime: LocalRuntime, method: str, limits: dict[str, str]) -> None:
    """One is captured, with a directory that it closed, and another made of it, twice over."""
    script = "mkdir ~/a; echo kept >~/a/b; chmod 000 ~/a/b ~/a; echo written; sleep 1000"
    wanted = plan("sh", "-c", script, limits=limits)
    await runtime.create(wanted, ignore)

    async def written() -> bool | None:
        return "written" in await runtime.logs(wanted.id, ALL) or None

    await eventually(written)
    if method == "none":
        try:
            await runtime.check_snapshot(wanted.id)
        except Conflict as error:
            assert error.code == "SNAPSHOT::UNSUPPORTED_RUNTIME"
            await runtime.delete(wanted.id)
            return
        raise AssertionError("there is nothing to be captured")
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    await runtime.snapshot(wanted.id, first)
    await runtime.delete(wanted.id)
    script = "cd ~; chmod 700 a; chmod 600 a/b; cat a/b; rm a/b; echo new >a/c; chmod 000 a/c a"
    wanted = plan("sh", "-c", f"{script}; echo written; sleep 1000", limits=limits)
    wanted = replace(wanted, image=None, snapshot_id=first, snapshot_image=first)
    await runtime.check(wanted)
    await runtime.create(wanted, ignore)
    await eventually(written)
    assert "kept" in await runtime.logs(wanted.id, ALL)
    await runtime.snapshot(wanted.id, second)
    await runtime.delete(wanted.id)
    await runtime.delete_snapshot(first, first)
    script = "cd ~; chmod 700 a; chmod 600 a/c; ls a; cat a/c"
    wanted = replace(plan("sh", "-c", script, limits=limits), image=None, snapshot_id=second, snapshot_image=second)
    _, output = await run(runtime, wanted)
    assert output.split() == ["c", "new"], output
    await runtime.delete(wanted.id)
    await runtime.delete_snapshot(second, second)


async def fourth_life(runtime: LocalRuntime, image: Path) -> None:
    """A directory as the root, in which nobody but another user may enter /root."""
    wanted = plan("sh", "-c", "cd . && echo in $PWD", image=f"dir:{image}")
    _, output = await run(runtime, wanted)
    assert output in ("in /\n", "in /root\n"), output  # without overlays there is a private one
    await runtime.delete(wanted.id)


def closed_image(root: Path) -> Path:
    """A root file system for the fourth life, made by whoever the program starts as."""
    for name, content in tools():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else b"")
        (root / name).chmod(0o755)
    (root / "root").mkdir()
    (root / "root").chmod(0o700 if os.geteuid() == 0 else 0)
    return root


async def main(base: Path, method: str, overlay: str, image: Path) -> None:
    chosen = local(isolation=method, overlay=overlay, cgroups="off", image_roots=[str(base)])
    runtime = LocalRuntime(settings(base, allowed=(str(base / "shared"),)), chosen)
    await runtime.start()
    ended = await first_life(base, runtime, method)
    paused, before = await second_life(runtime)
    await third_life(runtime, method, {})
    await third_life(runtime, method, {"disk": "16Mi"})
    if method != "none":
        await fourth_life(runtime, image)
    await runtime.stop()

    runtime = LocalRuntime(settings(base), chosen)
    await runtime.start()
    found = {workload.id: workload.phase for workload in await runtime.list()}
    assert found == {ended: Phase.FAILED, paused: Phase.PAUSED}
    await runtime.resume(paused)

    async def more() -> bool | None:
        return len(await runtime.logs(paused, ALL)) > len(before) or None

    await eventually(more)
    for sandbox_id in (ended, paused):
        await runtime.delete(sandbox_id)
        assert processes_of(sandbox_id) == []
    assert await runtime.list() == []
    try:
        await runtime.create(plan("no-such-command"), ignore)
    except EngineFailure as error:
        assert "not found in PATH" in error.message
    else:
        raise AssertionError("a missing command was started")
    await runtime.stop()


if __name__ == "__main__":
    base, method, overlay, way, uid = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
    image = closed_image(base / "image")
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        if not os.access(sys.executable, os.X_OK):  # the broker of namespaces is a program of its own
            sys.executable = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
    os.environ["HOME"] = str(base)
    if way == "direct":
        probe._candidates = only_direct
    (base / "shared").mkdir()
    (base / "shared/file").write_text("shared\n")
    try:
        asyncio.run(main(base, method, overlay, image))
    except BaseException:
        traceback.print_exc()
        raise
    sys.stdout.write("all well\n")
