"""What no sandbox may see, however it is renamed, replaced or named: files, keys of the kernel, locks."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, below, eventually, ignore, local, plan, run, settings, there

from shoal.errors import InvalidRequest
from shoal.models.requests import HostVolume, Volume
from shoal.models.workload import Phase
from shoal.plugin.interfaces import LogQuery
from shoal_local.root.secrets import masks, secret_paths
from shoal_local.run.keyring import _CALLS
from shoal_local.runtime import LocalRuntime
from shoal_local.state.directory import StateDirectory

PYTHON = "/usr/bin/python3"


@pytest.fixture
def visible() -> Iterator[Path]:
    """A directory that a sandbox sees, other than pytest's own below /tmp."""
    folder = Path("/srv", f"shoal-test-{uuid.uuid4().hex[:8]}")
    if not os.access("/srv", os.W_OK):
        pytest.skip("this user may not write to /srv")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def outside(visible: Path, isolation: str) -> AsyncIterator[LocalRuntime]:
    """A server whose store and configuration a sandbox could see."""
    (visible / "config.toml").write_text(f'key = "SECRET"\n[auth]\nfile = "{visible}/keys/table"\n')
    (visible / "keys").mkdir()
    (visible / "keys/table").write_text("SECRET")
    (visible / "store.db").write_text("SECRET")
    for path in (visible, *below(visible, "*")):
        path.chmod(0o755)
    runtime = LocalRuntime(
        settings(visible, allowed=(str(visible),)), local(isolation=isolation), visible / "config.toml"
    )
    await runtime.start()
    yield runtime
    for workload in await runtime.list():
        await runtime.delete(workload.id)
    await runtime.stop()


async def test_files_that_are_replaced_stay_hidden(outside: LocalRuntime, visible: Path) -> None:
    """An editor renames a new file over the old one; a clean stop removes the store's log, and a start makes it."""
    (visible / "gate").mkdir()
    os.mkfifo(visible / "gate/pipe")
    for path in (visible / "gate", visible / "gate/pipe"):
        path.chmod(0o777)
    go = Volume(name="go", mount_path="/go", host=HostVolume(path=f"{visible}/gate"))
    wanted = plan("sh", "-c", f"read -r word </go/pipe; grep -rs SECRET {visible}; echo end", volumes=(go,))
    await outside.create(wanted, ignore)
    for name in ("config.toml", "store.db", "store.db-wal", "keys/table"):
        (visible / "draft").write_text("SECRET again")
        (visible / "draft").rename(visible / name)
        (visible / name).chmod(0o644)
    await asyncio.to_thread((visible / "gate/pipe").write_text, "go\n")

    async def ended() -> bool | None:
        found = {workload.id: workload for workload in await outside.list()}
        return True if found[wanted.id].phase is Phase.EXITED else None

    assert await eventually(ended)
    assert await outside.logs(wanted.id, LogQuery(tail=100)) == "end\n"


@pytest.mark.parametrize("name", ["", "/keys", "/config.toml", "/store.db", "/local", "/local/sandboxes"])
async def test_no_volume_shows_them(outside: LocalRuntime, visible: Path, name: str) -> None:
    wanted = plan("true", volumes=(Volume(name="v", mount_path="/v", host=HostVolume(path=f"{visible}{name}")),))
    with pytest.raises(InvalidRequest, match="files of its own"):
        await outside.check(wanted)


def test_directories_of_their_own_are_hidden_and_shared_ones_are_not(tmp_path: Path) -> None:
    config = tmp_path / "etc/shoal/config.toml"
    config.parent.mkdir(parents=True)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/one").touch(0o600)
    config.write_text(f'[a]\nb = ["{tmp_path}/keys/one", "/etc/passwd"]\n[local.images]\nx = "dir:{tmp_path}"\n')
    given = settings(tmp_path / "data")
    found = secret_paths(given, local(hidden_paths=["/etc/hostname"]), StateDirectory(given, local()), config)
    hidden = masks(found)
    assert {tmp_path / "etc/shoal", tmp_path / "keys", tmp_path / "data", Path("/etc/hostname")} <= set(hidden)
    assert Path("/etc/passwd") not in found


async def test_the_session_keyring_is_the_sandboxs_own(start: Start, isolation: str) -> None:
    number = _CALLS.get(os.uname().machine)
    if number is None or not there(PYTHON):
        pytest.skip("needs python3 in /usr/bin, and a known architecture")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 1, b"shoal-test") < 0:
        pytest.skip("no keyrings here")
    add = {"x86_64": 248, "aarch64": 217}.get(os.uname().machine)
    if add is None:
        pytest.skip("add_key's number is not known here")
    assert libc.syscall(add, b"user", b"shoal_test_secret", b"TOP-SECRET", 10, -3) > 0
    runtime = await start(local(isolation=isolation))
    script = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"print('found' if libc.syscall({number}, 10, -3, b'user', b'shoal_test_secret', 0) > 0 else 'none')\n"
        f"print('planted' if libc.syscall({add}, b'user', b'shoal_test_planted', b'x', 1, -3) > 0 else 'refused')\n"
    )
    for _ in range(2):
        _, output = await run(runtime, plan(PYTHON, "-c", script))
        assert output.splitlines()[0] == "none"
    assert libc.syscall(number, 10, -3, b"user", b"shoal_test_planted", 0) < 0


async def test_a_lock_let_go_of_from_inside_changes_nothing(start: Start, isolation: str, tmp_path: Path) -> None:
    """With bubblewrap a sandbox gets at the descriptor of its lock; it still runs, and is still ended."""
    runtime = await start(local(isolation=isolation))
    if not there(PYTHON):
        pytest.skip("needs python3 in /usr/bin")
    script = (
        "import ctypes, fcntl, os, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "one = libc.syscall(434, 1, 0)\n"
        "for number in range(20):\n"
        "    taken = libc.syscall(438, one, number, 0)\n"
        "    if taken >= 0 and os.readlink(f'/proc/self/fd/{taken}').endswith('/lock'):\n"
        "        fcntl.flock(taken, fcntl.LOCK_UN)\n"
        "print('done', flush=True)\n"
        "time.sleep(1000)\n"
    )
    wanted = plan(PYTHON, "-c", script)
    await runtime.create(wanted, ignore)

    async def said() -> bool | None:
        return True if "done" in await runtime.logs(wanted.id, LogQuery(tail=10)) else None

    assert await eventually(said)
    runtime = await start(local(isolation=isolation))
    assert [(found.id, found.phase) for found in await runtime.list()] == [(wanted.id, Phase.RUNNING)]
    await runtime.delete(wanted.id)
    assert await runtime.list() == []
