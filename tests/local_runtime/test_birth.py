"""Processes that are born in their control group instead of moving there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local_runtime.machine import Start, groups_of, ignore, local, plan, processes_of

from shoal_local.limit.birth import fork_into
from shoal_local.limit.cgroups import Cgroups, born_into, detect
from shoal_local.limit.limits import Limits
from shoal_local.run import launch
from shoal_local.run.launch import Launcher
from shoal_local.run.process import parents


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    """Those of a sandbox ``born``."""
    groups = detect(f"shoal-test-{os.getpid()}")
    if all(hierarchy.version != 2 for hierarchy in groups.hierarchies.values()):
        groups.close()
        pytest.skip("no control groups of version 2 are writable here")
    groups.create("born", Limits())
    yield groups
    groups.remove("born")
    groups.close()


@pytest.fixture
def group(groups: Cgroups) -> Path:
    found = born_into(groups.joined("born"))
    assert found is not None
    return found


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher()
    yield launcher
    launcher.close()


def member(group: Path, pid: int) -> bool:
    return str(pid) in (group / "cgroup.procs").read_text().split()


def executes(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == f"{name}\n"


def programs() -> list[int]:
    """The launchers of this process."""
    mine = [pid for pid, parent in parents().items() if parent == os.getpid()]
    return [pid for pid in mine if str(launch.PROGRAM).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_child_is_born_in_the_group(group: Path) -> None:
    handle, (reader, writer) = os.open(group, os.O_RDONLY), os.pipe()
    pid = fork_into(handle)
    if pid == 0:
        os.read(reader, 1)
        os._exit(3)
    assert member(group, pid)
    os.write(writer, b".")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    for each in (handle, reader, writer):
        os.close(each)


def test_what_is_launched_is_a_child_of_the_server_in_the_group(launcher: Launcher, group: Path) -> None:
    (stdin, to), (out, stdout) = os.pipe(), os.pipe()
    script = 'echo "$A $0"; read line; exit 4'
    pid = launcher.launch(["/bin/sh", "-c", script, "name"], {"A": "b"}, (stdin, stdout, stdout), group)
    assert pid is not None
    assert os.read(out, 100) == b"b name\n"
    assert member(group, pid)
    assert os.getsid(pid) == pid
    assert sorted(entry.name for entry in Path(f"/proc/{pid}/fd").iterdir()) == ["0", "1", "2"]
    os.write(to, b"\n")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    for each in (stdin, to, out, stdout):
        os.close(each)


def test_a_program_that_is_not_there_is_told_on_the_third_descriptor(launcher: Launcher, group: Path) -> None:
    reader, writer = os.pipe()
    pid = launcher.launch(["/nonexistent"], {}, (reader, writer, writer), group)
    assert pid is not None
    assert b"No such file" in os.read(reader, 200)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 127
    os.close(reader)
    os.close(writer)


def test_a_group_that_is_not_there_starts_nothing(launcher: Launcher, group: Path) -> None:
    streams = (0, 1, 2)
    assert launcher.launch(["/bin/true"], {}, streams, group / "missing") is None
    assert launcher.launch(["/bin/true"], {}, streams, Path("/")) is None


async def test_sandboxes_start_whatever_becomes_of_the_launcher(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, network="none"))
    await runtime.create(plan("sleep", "600"), ignore)
    if not programs():
        pytest.skip("no control groups of version 2 are writable here")
    (pid,) = programs()
    os.kill(pid, signal.SIGKILL)
    await runtime.create(plan("sleep", "600"), ignore)
    await runtime.create(plan("sleep", "600"), ignore)
    assert len(programs()) == 1
    await start(local(isolation=isolation, network="none"))  # ends the one before
    assert programs() == []


async def test_sandboxes_join_their_groups_where_none_can_be_born(
    start: Start, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await start(local(isolation=isolation, network="none"))
    monkeypatch.setattr(Launcher, "launch", lambda *_: None)
    wanted = plan("sleep", "600")
    await runtime.create(wanted, ignore)
    groups = groups_of(wanted.id)
    if not groups:
        pytest.skip("no control groups are writable here")
    inside = [pid for pid in processes_of(wanted.id) if executes(pid, "sleep")]
    assert inside
    for group in groups:
        assert all(member(group, pid) for pid in inside)
