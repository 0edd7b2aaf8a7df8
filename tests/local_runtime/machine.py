"""What the tests need to know of this machine, and small tools to look at it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TypeVar

from shoal.config.settings import Settings, StorageSettings, StoreSettings
from shoal.models.plan import WorkloadPlan
from shoal.models.requests import Volume
from shoal.models.workload import Workload
from shoal.plugin.interfaces import LogQuery
from shoal_local.config import LocalSettings
from shoal_local.runtime import LocalRuntime

T = TypeVar("T")
ROOT = os.geteuid() == 0
Start = Callable[..., Awaitable[LocalRuntime]]
"""Makes and starts a runtime, and stops it after the test."""
PATIENCE = 30.0
"""Seconds after which something that is bound to come has not; never a measure of speed."""


@cache
def can_unshare() -> bool:
    """Do user namespaces work here?"""
    words = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--fork", "true"]
    return (
        shutil.which("unshare") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


@cache
def can_bubblewrap() -> bool:
    """Is bubblewrap installed, and does it work? A try fails where a mount of this machine goes away meanwhile."""
    words = ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "true"]
    return shutil.which("bwrap") is not None and any(
        subprocess.run(words, capture_output=True, check=False).returncode == 0 for _ in range(5)
    )


def settings(base: Path, *, allowed: tuple[str, ...] = ()) -> Settings:
    store = StoreSettings(path=str(base / "store.db"))
    return Settings(store=store, storage=StorageSettings(allowed_host_paths=list(allowed)))


def plan(
    *command: str,
    image: str = "host",
    env: Mapping[str, str | None] | None = None,
    limits: Mapping[str, str] | None = None,
    volumes: tuple[Volume, ...] = (),
    sandbox_id: str | None = None,
) -> WorkloadPlan:
    return WorkloadPlan(
        id=sandbox_id or str(uuid.uuid4()),
        runtime="local",
        created_at=datetime.now(UTC),
        command=list(command),
        image=image,
        env=dict(env or {}),
        resource_limits=dict(limits or {}),
        volumes=list(volumes),
        metadata={"team": "blue"},
    )


def ignore(reason: str, message: str) -> None:
    """A progress that nobody looks at."""


async def run(runtime: LocalRuntime, plan: WorkloadPlan) -> tuple[Workload, str]:
    """Create a sandbox, wait for its end, and return it with its output; it is left in place."""
    await runtime.create(plan, ignore)
    return await end(runtime, plan.id), await runtime.logs(plan.id, LogQuery(tail=10_000))


async def end(runtime: LocalRuntime, sandbox_id: str) -> Workload:
    """Wait until a sandbox has ended by itself."""

    async def over() -> Workload | None:
        found = {workload.id: workload for workload in await runtime.list()}
        workload = found[sandbox_id]
        return workload if workload.phase in ("exited", "failed") else None

    return await eventually(over)


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """The first result that is not None."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        result = await look()
        if result is not None:
            return result
        await asyncio.sleep(0.01)
    raise AssertionError("it never came")


def processes_of(sandbox_id: str) -> list[int]:
    """Every process on this machine whose environment names the sandbox."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if sandbox_id.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def groups_of(sandbox_id: str) -> list[Path]:
    """Every control group of the sandbox. Others' come and go meanwhile, which a walk bears and a glob does not."""
    return [Path(where, sandbox_id) for where, groups, _ in os.walk("/sys/fs/cgroup") if sandbox_id in groups]


def mounts_naming(text: str) -> list[str]:
    """This process's mounts that name ``text``."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if text in line]


def there(path: str) -> bool:
    """Does it exist on this machine?"""
    return Path(path).exists()


def let_pass(folder: Path) -> None:
    """Let every user through to a folder: pytest's own directories are private to its user."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)


def link(path: str) -> str:
    """Where a symlink points."""
    return str(Path(path).readlink())


def below(folder: Path, pattern: str) -> list[Path]:
    """Every path of that name below ``folder``; what goes while this looks (an overlay's work files) is no error."""
    found = (Path(parent, name) for parent, folders, files in os.walk(folder) for name in (*folders, *files))
    return [path for path in found if fnmatch(path.name, pattern)]


def local(**keys: object) -> LocalSettings:
    return LocalSettings(**keys)  # type: ignore[arg-type]  # the tests' own keys
