"""Snapshots: what a sandbox wrote is there again, as it was; what it could not write to stays out of its reach."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.local_runtime.layouts import layer, layout, program, tools
from tests.local_runtime.machine import (
    ROOT,
    Start,
    end,
    eventually,
    ignore,
    let_pass,
    local,
    mounts_naming,
    plan,
    run,
    there,
)

from shoal.errors import Conflict, EngineFailure
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_local.runtime import LocalRuntime
from shoal_local.snapshot import capture, copying

WAIT = "; echo written; exec sleep 1000"
ENTRIES = [
    *(entry for name in ("/bin/rm", "/bin/mkdir", "/bin/ln", "/bin/mv", "/bin/sleep") for entry in program(name)),
    *tools(),
    ("data/", ""),
    ("data/old", "old\n"),
    ("data/kept", "from the image\n"),
    ("data/folder/", ""),
    ("data/folder/below", "below\n"),
    ("etc/motd", "from the image\n"),
]


@pytest.fixture(params=["auto", "off"])
async def runtime(request: pytest.FixtureRequest, start: Start, isolation: str) -> LocalRuntime:
    return await start(local(isolation=isolation, overlay=request.param))


@pytest.fixture
async def over_image(start: Start, isolation: str, tmp_path: Path) -> tuple[LocalRuntime, str]:
    """A runtime with overlays, and an image for it."""
    folder = layout(tmp_path / "image", [layer(ENTRIES)])
    return await start(local(isolation=isolation, image_roots=[str(tmp_path)])), f"oci-layout:{folder}"


async def written(runtime: LocalRuntime, wanted: WorkloadPlan) -> str:
    """Create a sandbox, and wait for its word."""
    await runtime.check(wanted)
    await runtime.create(wanted, ignore)

    async def said() -> str | None:
        text = await runtime.logs(wanted.id, LogQuery(tail=1000))
        return text if "written" in text else None

    return await eventually(said)


async def taken(runtime: LocalRuntime, script: str, **more: object) -> str:
    """The id of a snapshot of a sandbox that has run a script; the sandbox is gone."""
    wanted = plan("sh", "-c", script + WAIT, **more)  # type: ignore[arg-type]  # the plan's own keys
    await written(runtime, wanted)
    snapshot_id = await captured(runtime, wanted.id)
    await runtime.delete(wanted.id)
    return snapshot_id


async def captured(runtime: LocalRuntime, sandbox_id: str) -> str:
    await runtime.check_snapshot(sandbox_id)
    snapshot_id = str(uuid.uuid4())
    assert await runtime.snapshot(sandbox_id, snapshot_id) == snapshot_id
    return snapshot_id


def restoring(snapshot_id: str, *command: str, **more: object) -> WorkloadPlan:
    wanted = plan(*command, **more)  # type: ignore[arg-type]  # the plan's own keys
    return replace(wanted, image=None, snapshot_id=snapshot_id, snapshot_image=snapshot_id)


async def shown(runtime: LocalRuntime, snapshot_id: str, script: str, **more: object) -> str:
    """What a script says in a sandbox that is made of a snapshot; the sandbox is gone."""
    wanted = restoring(snapshot_id, "sh", "-c", script, **more)
    await runtime.check(wanted)
    _, output = await run(runtime, wanted)
    await runtime.delete(wanted.id)
    return output


async def test_what_was_written_is_there_again(runtime: LocalRuntime) -> None:
    places = ("/tmp", "/root", "/home", "/run", "/var/tmp", "/workspace")
    each = f"for d in {' '.join(places)}; do"
    snapshot_id = await taken(runtime, f"mkdir -p /workspace; {each} echo in $d >$d/file; done")
    output = await shown(runtime, snapshot_id, f"{each} cat $d/file; done; echo new >/tmp/new")
    assert output.splitlines() == [f"in {place}" for place in places]


MAKE = """
import os, socket
os.chdir("/root"); os.umask(0)
open("plain", "w").write("x"); os.link("plain", "twin"); os.symlink("/nowhere", "link"); os.mkfifo("pipe", 0o640)
os.chmod("plain", 0o4751); os.utime("plain", ns=(1, 1234567890123456789))
os.mkdir("closed"); open("closed/in", "w").write("secret"); os.chmod("closed/in", 0); os.chmod("closed", 0)
os.mkdir("sticky"); os.chmod("sticky", 0o1770); socket.socket(socket.AF_UNIX).bind("socket")
f = open("holes", "wb"); f.truncate(1 << 40); f.seek(1 << 30); f.write(b"end"); f.close()
open(b"\\xff\\n name", "w")
try: os.setxattr("plain", "user.colour", b"blue")
except OSError: pass
"""
LOOK = """
import os, stat
os.chdir("/root")
for n in sorted(os.listdir(b".")):
    s = os.lstat(n)
    more = os.readlink(n) if stat.S_ISLNK(s.st_mode) else os.listxattr(n) if stat.S_ISREG(s.st_mode) else ""
    print(n, oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_blocks, s.st_mtime_ns, more)
print(os.path.samefile("plain", "twin"))
"""
OPEN = 'import os; os.chdir("/root/closed"); os.chmod("in", 0o600); print(open("in").read())'


async def test_files_are_kept_as_they_are(runtime: LocalRuntime) -> None:
    python = "/usr/bin/python3 -c"
    env = {"MAKE": MAKE, "LOOK": LOOK, "OPEN": OPEN}
    wanted = plan("sh", "-c", f'{python} "$MAKE"; {python} "$LOOK" {WAIT}', env=env)
    before = (await written(runtime, wanted)).splitlines()[:-1]
    assert len(before) == 10, before
    snapshot_id = await captured(runtime, wanted.id)
    look = f'{python} "$LOOK"; chmod 700 /root/closed; {python} "$OPEN"'
    after = (await shown(runtime, snapshot_id, look, env=env)).splitlines()
    assert after == [*(line for line in before if "socket" not in line), "secret"]


async def test_removals_and_replaced_directories_stay(over_image: tuple[LocalRuntime, str]) -> None:
    runtime, image = over_image
    script = "rm /data/old; rm -r /data/folder; mkdir /data/folder; echo x >/data/folder/new; echo mine >/etc/motd"
    snapshot_id = await taken(runtime, script, image=image)
    look = "cd /data; ls; ls folder; cat kept; cat /etc/motd"
    expected = ["folder", "kept", "new", "from the image", "mine"]
    assert (await shown(runtime, snapshot_id, look)).splitlines() == expected


async def test_snapshots_of_restored_sandboxes(over_image: tuple[LocalRuntime, str]) -> None:
    """Each holds everything: files of the first, without what the second removed, over what the third replaced."""
    runtime, image = over_image
    script = "cd /data; mkdir -p a/b c; echo 1 >a/b/one; echo 1 >c/one; rm old folder/below"
    first = await taken(runtime, script, image=image)
    steps = "rm /data/a/b/one; echo 2 >/data/a/two; rm -r /data/c; echo file >/data/c; echo back >/data/old"
    wanted = restoring(first, "sh", "-c", steps + WAIT)
    await written(runtime, wanted)
    assert f"Snapshot:       {first}" in await runtime.inspect(wanted.id)
    second = await captured(runtime, wanted.id)
    with pytest.raises(Conflict, match="still uses"):
        await runtime.delete_snapshot(first, first)
    await runtime.delete(wanted.id)
    await runtime.delete_snapshot(first, first)
    steps = "cd /data; rm c; mkdir c; rm -r a; mkdir a; echo 3 >a/three"
    wanted = restoring(second, "sh", "-c", steps + WAIT)
    await written(runtime, wanted)
    third = await captured(runtime, wanted.id)
    await runtime.delete(wanted.id)
    found = await shown(runtime, second, "cd /data; ls a a/b; cat c old a/two")
    assert found.split() == ["a:", "b", "two", "a/b:", "file", "back", "2"]
    found = await shown(runtime, third, "cd /data; ls a c folder; cat old a/three")
    assert found.split() == ["a:", "three", "c:", "folder:", "back", "3"]
    for snapshot_id in (second, third, third):
        await runtime.delete_snapshot(snapshot_id, snapshot_id)


async def test_it_is_one_moment_and_the_source_goes_on(runtime: LocalRuntime) -> None:
    """A writer that is never more than one step ahead in one file of another is not in the snapshot, either."""
    script = (
        "cd /root; i=0; echo 0 >a; echo 0 >b; echo written; "
        "while :; do i=$((i+1)); echo $i >a.new; mv a.new a; echo $i >b.new; mv b.new b; done"
    )
    wanted = plan("sh", "-c", script)
    await written(runtime, wanted)
    for _ in range(5):
        snapshot_id = await captured(runtime, wanted.id)
        first, second = map(int, (await shown(runtime, snapshot_id, "cat /root/a /root/b")).split())
        assert first - second in (0, 1)
        await runtime.delete_snapshot(snapshot_id, snapshot_id)
    assert [found.phase for found in await runtime.list()] == [Phase.RUNNING]


async def test_it_stays_running_meanwhile(runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = plan("sh", "-c", "true" + WAIT)
    await written(runtime, wanted)
    seen: list[Phase] = []
    really = copying.copy

    def looking(*arguments: object, **more: object) -> None:
        seen.extend(found.phase for found in runtime._keeper.all())
        really(*arguments, **more)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(capture, "copy", looking)
    await captured(runtime, wanted.id)
    assert seen == [Phase.RUNNING]


async def test_a_paused_or_ended_source(runtime: LocalRuntime) -> None:
    wanted = plan("sh", "-c", "echo x >/root/x" + WAIT)
    await written(runtime, wanted)
    await runtime.pause(wanted.id)
    snapshot_id = await captured(runtime, wanted.id)
    assert [found.phase for found in await runtime.list()] == [Phase.PAUSED]
    assert await shown(runtime, snapshot_id, "cat /root/x") == "x\n"
    ended = plan("true")
    await runtime.create(ended, ignore)
    await end(runtime, ended.id)
    with pytest.raises(Conflict, match="does not run"):
        await runtime.snapshot(ended.id, str(uuid.uuid4()))


@pytest.mark.parametrize("quota", ["loop", "tmpfs"])
async def test_a_bounded_disk(start: Start, isolation: str, quota: str, tmp_path: Path) -> None:
    if quota == "loop" and not (ROOT and there("/dev/loop-control")):
        pytest.skip("loop devices need root")
    runtime = await start(local(isolation=isolation, disk_quota=quota))
    snapshot_id = await taken(runtime, "echo a >/etc/a; echo t >/var/tmp/t", limits={"disk": "16Mi"})
    fill = "cat /etc/a /var/tmp/t; cat /dev/zero >/etc/fill; stat -c %s /etc/fill"
    output = (await shown(runtime, snapshot_id, fill, limits={"disk": "16Mi"})).splitlines()
    assert output[:2] == ["a", "t"]
    assert 8 * 2**20 < int(output[-1]) <= 16 * 2**20
    assert mounts_naming(str(tmp_path / "local/sandboxes")) == []


async def test_a_command_that_only_the_snapshot_has(runtime: LocalRuntime) -> None:
    script = "mkdir /root/bin; printf '#!/bin/sh\\necho own $1\\n' >/root/bin/own; chmod +x /root/bin/own"
    snapshot_id = await taken(runtime, script)
    for command in ("own", "/root/bin/own"):
        wanted = restoring(snapshot_id, command, "word", env={"PATH": "/root/bin:/usr/bin:/bin"})
        assert (await run(runtime, wanted))[1] == "own word\n"


async def test_links_of_a_snapshot_are_not_followed_by_the_server(
    over_image: tuple[LocalRuntime, str], tmp_path: Path
) -> None:
    """The server makes files in /etc, mount points and the working directory: in the sandbox's own layer only."""
    runtime, image = over_image
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    script = f"rm -r /etc /data; for n in etc data root .opensandbox; do ln -s {outside} /$n; done"
    snapshot_id = await taken(runtime, script, image=image)
    assert (await shown(runtime, snapshot_id, "echo runs")).splitlines()[-1:] == ["runs"]
    assert list(outside.iterdir()) == []


async def test_nothing_hidden_appears(start: Start, isolation: str, tmp_path: Path) -> None:
    secret = Path("/etc") / f"shoal-test-{os.getpid()}" if ROOT else tmp_path / "secret"
    secret.mkdir()
    try:
        (secret / "key").write_text("hidden\n")
        runtime = await start(local(isolation=isolation))
        snapshot_id = await taken(runtime, "echo x >/etc/x")
        runtime = await start(local(isolation=isolation, hidden_paths=[str(secret), str(secret / "key")]))
        output = await shown(runtime, snapshot_id, f"cat /etc/x {secret}/key; ls -a {secret}")
        assert "hidden" not in output
        assert output.startswith("x\n")
    finally:
        (secret / "key").unlink()
        secret.rmdir()


async def test_where_it_cannot_be(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation))
    snapshot_id = await taken(runtime, "true")
    if ROOT:
        runtime = await start(local(isolation=isolation, uid=64001))
        with pytest.raises(Conflict, match="belong to the user 64000"):
            await runtime.check(restoring(snapshot_id, "true"))
    runtime = await start(local(isolation=isolation, overlay="off"))
    with pytest.raises(Conflict, match="another kind of root"):
        await runtime.check(restoring(snapshot_id, "true"))
    runtime = await start(local(isolation=isolation))
    with pytest.raises(Conflict, match="not in local\\.state_dir"):
        await runtime.check(restoring(str(uuid.uuid4()), "true"))


async def test_without_isolation_there_is_no_layer(start: Start, tmp_path: Path) -> None:
    let_pass(tmp_path)
    runtime = await start(local(isolation="none"))
    wanted = plan("sleep", "1000")
    await runtime.create(wanted, ignore)
    with pytest.raises(Conflict) as refused:
        await runtime.check_snapshot(wanted.id)
    assert refused.value.code == "SNAPSHOT::UNSUPPORTED_RUNTIME"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if not ROOT:
        pytest.skip("mounting needs root")
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(point)], check=True)
    yield point
    subprocess.run(["umount", "--lazy", str(point)], check=True)


async def test_a_full_disk_leaves_nothing(small_disk: Path, start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, state_dir=str(small_disk)))
    wanted = plan("sh", "-c", "head -c 25000000 /dev/zero >/root/big" + WAIT)
    await written(runtime, wanted)
    with pytest.raises(EngineFailure, match="no space is left"):
        await captured(runtime, wanted.id)
    assert list((small_disk / "snapshots").iterdir()) == []
    assert [found.phase for found in await runtime.list()] == [Phase.RUNNING]
    await runtime.delete(wanted.id)


VICTIM = """
import asyncio, sys
from pathlib import Path
from tests.local_runtime.machine import ignore, local, plan, settings
from tests.local_runtime.test_snapshots import WAIT, written
from shoal_local.runtime import LocalRuntime

async def main():
    runtime = LocalRuntime(settings(Path(sys.argv[1])), local(isolation=sys.argv[2]))
    await runtime.start()
    script = "cd /root; i=0; while [ $i -lt 2000 ]; do : >$i; i=$((i+1)); done"
    wanted = plan("sh", "-c", script + "; echo written; while :; do echo tick; sleep 0.02; done")
    await written(runtime, wanted)
    print("id", wanted.id, flush=True)
    await runtime.snapshot(wanted.id, sys.argv[3])

asyncio.run(main())
"""


def _kill_while_copying(base: Path, isolation: str, snapshot_id: str) -> str:
    """Run a server that captures a sandbox, and kill it while the files are copied; returns the sandbox."""
    words = [sys.executable, "-c", VICTIM, str(base), isolation, snapshot_id]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as victim:
        assert victim.stdout is not None
        sandbox_id = next(line for line in victim.stdout if line.startswith("id ")).split()[1]
        mark, drafts = base / "local/sandboxes" / sandbox_id / "captured", base / "local/snapshots"
        while not (mark.exists() and any(drafts.glob(".*/layers/*"))):
            assert victim.poll() is None
            time.sleep(0.001)
        victim.kill()
    return sandbox_id


async def test_a_killed_server_leaves_no_half(start: Start, isolation: str, tmp_path: Path) -> None:
    """The sandbox goes on, and the snapshot can be taken again."""
    snapshot_id, folder = str(uuid.uuid4()), tmp_path / "local"
    sandbox_id = _kill_while_copying(tmp_path, isolation, snapshot_id)
    assert not (folder / "snapshots" / snapshot_id).exists()
    runtime = await start(local(isolation=isolation))
    assert [found.phase for found in await runtime.list()] == [Phase.RUNNING]
    assert list((folder / "snapshots").iterdir()) == []
    before = await runtime.logs(sandbox_id, LogQuery(tail=100_000))

    async def more() -> bool | None:
        return len(await runtime.logs(sandbox_id, LogQuery(tail=100_000))) > len(before) or None

    await eventually(more)
    assert await runtime.snapshot(sandbox_id, snapshot_id) == snapshot_id
    assert await shown(runtime, snapshot_id, "ls /root | wc -l") == "2000\n"


async def test_many_at_once(runtime: LocalRuntime) -> None:
    snapshot_id = await taken(runtime, "echo x >/root/x")
    wanted = [restoring(snapshot_id, "sh", "-c", f"echo {number} >>/root/x; cat /root/x") for number in range(8)]
    found = await asyncio.gather(*(run(runtime, each) for each in wanted))
    assert [output for _, output in found] == [f"x\n{number}\n" for number in range(8)]
