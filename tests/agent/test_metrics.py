"""Metrics: the files of cgroups of both versions, and the real program in a cgroup with limits."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.agent.program import AgentProcess, StartAgent

from shoal_agent.cgroup import Cgroup, CgroupMount, groups, mounts
from shoal_agent.usage import MIB, Usage

MOUNTINFO = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
33 31 0:35 /docker/abc /sys/fs/cgroup/a\040memory ro - cgroup cgroup rw,memory
34 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
CGROUP = "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc/sub\n3:name=systemd:/x\n0::/deep:er\n"
FIELDS = {"cpu_count", "cpu_used_pct", "mem_total_mib", "mem_used_mib", "timestamp"}


def test_where_cgroups_are_mounted() -> None:
    assert mounts(MOUNTINFO) == [
        CgroupMount(frozenset({"rw", "cpu", "cpuacct"}), "/docker/abc", "/sys/fs/cgroup/cpu,cpuacct"),
        CgroupMount(frozenset({"rw", "memory"}), "/docker/abc", "/sys/fs/cgroup/a memory"),
        CgroupMount(frozenset(), "/", "/sys/fs/cgroup/unified"),
    ]
    found = groups(CGROUP)
    assert found["memory"] == "/docker/abc"
    assert found["cpu"] == found["cpuacct"] == "/docker/abc/sub"
    assert found[""] == "/deep:er"


def test_the_own_folder_and_those_above(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    mount = CgroupMount(frozenset({"memory"}), "/docker/abc", str(tmp_path))

    def folders(path: str) -> list[str]:
        return [os.path.relpath(folder, tmp_path) for folder in Cgroup([mount], {"memory": path}).folders("memory")]

    assert folders("/docker/abc/a/b") == ["a/b", "a", "."]
    assert folders("/docker/abc") == ["."]
    assert folders("/docker/other") == ["."]
    assert folders("/../../../..") == ["."]
    assert Cgroup([mount], {}).folders("memory") == []


def files(folder: Path, **content: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> str:
    """A host with 4 GiB, of which 3 are available."""
    files(
        tmp_path / "proc",
        meminfo="MemTotal:  4194304 kB\nMemAvailable: 3145728 kB\n",
        stat="cpu  100 0 50 900 7 0 0 0\n",
    )
    return str(tmp_path / "proc")


def test_version_2(tmp_path: Path, proc: str) -> None:
    own = tmp_path / "cg/a"
    files(
        own,
        memory__max="max\n",
        memory__current=f"{300 * MIB}\n",
        memory__stat=f"anon 1\ninactive_file {100 * MIB}\n",
        cpu__max="50000 100000\n",
        cpu__stat="usage_usec 2500000\nuser_usec 1\n",
    )
    files(tmp_path / "cg", memory__max=f"{512 * MIB}\n", cpu__max="max 100000\n")
    usage = Usage(Cgroup([CgroupMount(frozenset(), "/", str(tmp_path / "cg"))], {"": "/a"}), proc)
    assert usage.memory() == (512 * MIB, 200 * MIB)
    assert usage.cpus() == 0.5
    assert usage.cpu_time().used == 2.5


def test_version_1(tmp_path: Path, proc: str) -> None:
    files(
        tmp_path / "memory",
        memory__usage_in_bytes=f"{300 * MIB}",
        memory__limit_in_bytes=f"{512 * MIB}",
        memory__stat=f"inactive_file 5\ntotal_inactive_file {100 * MIB}",
    )
    files(tmp_path / "cpu", cpu__cfs_quota_us="25000", cpu__cfs_period_us="100000", cpuacct__usage="2500000000")
    mounted = [
        CgroupMount(frozenset({"memory"}), "/", str(tmp_path / "memory")),
        CgroupMount(frozenset({"cpu", "cpuacct"}), "/", str(tmp_path / "cpu")),
    ]
    usage = Usage(Cgroup(mounted, {"memory": "/", "cpu": "/", "cpuacct": "/"}), proc)
    assert usage.memory() == (512 * MIB, 200 * MIB)
    assert usage.cpus() == 0.25
    assert usage.cpu_time().used == 2.5
    files(tmp_path / "memory", memory__limit_in_bytes="9223372036854771712")
    files(tmp_path / "cpu", cpu__cfs_quota_us="-1")
    assert usage.memory().total == 4096 * MIB
    assert usage.cpus() == len(os.sched_getaffinity(0))


def test_the_host_where_there_is_no_cgroup(proc: str) -> None:
    usage = Usage(Cgroup([], {}), proc)
    assert usage.memory() == (4096 * MIB, 1024 * MIB)
    assert usage.cpu_time().used == 150 / os.sysconf("SC_CLK_TCK")


def sample(agent: AgentProcess) -> dict[str, float]:
    with agent.client() as http:
        answer = http.get("/metrics")
    found: dict[str, float] = answer.json()
    assert set(found) == FIELDS
    assert 0 <= found["cpu_used_pct"] <= 100
    assert 0 < found["mem_used_mib"] <= found["mem_total_mib"]
    assert found["cpu_count"] >= 1
    assert abs(found["timestamp"] - time.time() * 1000) < 60_000
    return found


def test_five_figures(agent: AgentProcess) -> None:
    first, second = sample(agent), sample(agent)
    assert second["timestamp"] >= first["timestamp"]
    assert isinstance(first["cpu_count"], int)


def test_a_watch(agent: AgentProcess) -> None:
    with agent.client() as http, http.stream("GET", "/metrics/watch") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.iter_text()
        lines = [next(pieces) for _ in range(2)]
    for line in lines:
        assert line.endswith("}\n")
        assert set(httpx.Response(200, text=line).json()) == FIELDS


@pytest.fixture
def limited() -> Iterator[Path]:
    """A memory cgroup of 256 MiB."""
    for root, name in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        own = Path(root) / f"shoal-agent-{os.getpid()}"
        try:
            own.mkdir()
        except OSError:
            continue
        try:
            (own / name).write_text(str(256 * MIB))
        except OSError:
            own.rmdir()
            continue
        yield own
        while subprocess.run(["rmdir", own], check=False, capture_output=True).returncode:
            time.sleep(0.05)
        return
    pytest.skip("this machine gives us no memory cgroup")


def test_the_own_cgroup_of_the_program(start_agent: StartAgent, limited: Path) -> None:
    agent = start_agent()
    assert sample(agent)["mem_total_mib"] > 256
    (limited / "cgroup.procs").write_text(str(agent.pid))
    found = sample(agent)
    assert found["mem_total_mib"] == 256
    assert found["mem_used_mib"] < 128
    agent.stop()
