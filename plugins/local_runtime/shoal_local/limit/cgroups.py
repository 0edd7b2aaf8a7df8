"""Control groups, version 1 and 2, as far as this server may write them.

Every sandbox gets one directory in each hierarchy that it needs, named after it, below one directory of this server's.
Which hierarchy serves which purpose is found out once, by trying. Sources: the kernel's admin-guide cgroup-v1 and
cgroup-v2 documents.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

from shoal.errors import EngineFailure
from shoal_local.limit.limits import Limits

Purpose = Literal["memory", "cpu", "pids", "freezer"]
PURPOSES: Final[tuple[Purpose, ...]] = ("memory", "cpu", "pids", "freezer")
PERIOD_MICROSECONDS: Final = 100_000
FREEZE_SECONDS: Final = 10.0
MEMBERS: Final = "cgroup.procs"
_PAUSE: Final = 0.001


def born_into(joined: list[Path]) -> Path | None:
    """Of the files by which a process joins its groups, the directory of the group that it is better born in.

    See `shoal_local.limit.birth`. None if all are of version 1.
    """
    return next((file.parent for file in joined if file.name == MEMBERS), None)


class Hierarchy(Struct, frozen=True):
    """Where groups for one purpose are made; ``version`` is 1 or 2."""

    version: int
    base: Path


class Cgroups:
    """The groups of one server's sandboxes; empty ``hierarchies`` means that none is writable. All calls may block."""

    def __init__(self, hierarchies: dict[Purpose, Hierarchy]) -> None:
        self.hierarchies = hierarchies

    def label(self, purpose: Purpose) -> str | None:
        """``cgroup v2`` or None."""
        found = self.hierarchies.get(purpose)
        return None if found is None else f"cgroup v{found.version}"

    def create(self, sandbox_id: str, limits: Limits) -> list[Path]:
        """Make the sandbox's groups and set their limits; returns the files that its first process must join."""
        wanted = {
            "memory": limits.memory is not None,
            "cpu": limits.cpu is not None,
            "pids": bool(limits.pids),
            "freezer": True,
        }
        folders: list[Path] = []
        for purpose, hierarchy in self.hierarchies.items():
            folder = hierarchy.base / sandbox_id
            if wanted[purpose]:
                folder.mkdir(exist_ok=True)
                _limit(folder, purpose, hierarchy.version, limits)
                if folder not in folders:
                    folders.append(folder)
        return self._joined(folders)

    def joined(self, sandbox_id: str) -> list[Path]:
        """The files by which a process joins the groups that a sandbox has."""
        folders = dict.fromkeys(hierarchy.base / sandbox_id for hierarchy in self.hierarchies.values())
        return self._joined([folder for folder in folders if folder.is_dir()])

    def _joined(self, folders: list[Path]) -> list[Path]:
        """The files by which a process with one thread joins; the one of version 2 first, see `born_into`."""
        second = {hierarchy.base for hierarchy in self.hierarchies.values() if hierarchy.version == 2}
        # A thread that moves itself in version 1 waits for nobody; a whole process waits as in version 2.
        files = [folder / (MEMBERS if folder.parent in second else "tasks") for folder in folders]
        return sorted(files, key=lambda file: file.name != MEMBERS)

    def pids(self, sandbox_id: str) -> list[int] | None:
        """Every process of the sandbox, in this process's pid namespace; None where there is no group."""
        hierarchy = self.hierarchies.get("freezer")
        if hierarchy is None:
            return None
        try:
            words = (hierarchy.base / sandbox_id / MEMBERS).read_text().split()
        except FileNotFoundError:
            return None
        return [int(word) for word in words if word != "0"]

    def has(self, sandbox_id: str) -> bool:
        """Is there a group that can freeze this sandbox?"""
        hierarchy = self.hierarchies.get("freezer")
        return hierarchy is not None and (hierarchy.base / sandbox_id).is_dir()

    def freeze(self, sandbox_id: str, frozen: bool) -> None:
        """Freeze or thaw; returns when all are. Raises EngineFailure if they are not within `FREEZE_SECONDS`."""
        hierarchy = self.hierarchies["freezer"]
        folder = hierarchy.base / sandbox_id
        file, text = ("cgroup.freeze", "01"[frozen]) if hierarchy.version == 2 else ("freezer.state", _V1_STATE[frozen])
        deadline = time.monotonic() + FREEZE_SECONDS
        (folder / file).write_text(text)
        while self.frozen(sandbox_id) is not frozen:
            if time.monotonic() > deadline:
                with suppress(OSError):
                    (folder / file).write_text("01"[not frozen] if hierarchy.version == 2 else _V1_STATE[not frozen])
                raise EngineFailure("LOCAL::SANDBOX_PAUSE_FAILED", "the kernel did not freeze every process in time")
            time.sleep(_PAUSE)
            if hierarchy.version == 1:
                # While processes are born, v1 has to be asked again (freezer-subsystem.txt).
                (folder / file).write_text(text)

    def frozen(self, sandbox_id: str) -> bool:
        """Are all processes of this sandbox frozen?"""
        hierarchy = self.hierarchies.get("freezer")
        if hierarchy is None:
            return False
        folder = hierarchy.base / sandbox_id
        with suppress(FileNotFoundError):
            if hierarchy.version == 1:
                return (folder / "freezer.state").read_text().strip() == "FROZEN"
            return "frozen 1" in (folder / "cgroup.events").read_text()
        return False

    def oom_killed(self, sandbox_id: str) -> bool:
        """Has the kernel killed a process of this sandbox for exceeding its memory limit?"""
        hierarchy = self.hierarchies.get("memory")
        if hierarchy is None:
            return False
        file = "memory.events" if hierarchy.version == 2 else "memory.oom_control"
        with suppress(OSError):
            for line in (hierarchy.base / sandbox_id / file).read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1]) > 0
        return False

    def remove(self, sandbox_id: str, timeout: float = 10.0) -> None:
        """Remove the sandbox's groups, waiting for the last process to leave. Raises EngineFailure if one stays."""
        for base in {hierarchy.base for hierarchy in self.hierarchies.values()}:
            deadline = time.monotonic() + timeout
            while not _remove(base / sandbox_id):
                if time.monotonic() > deadline:
                    raise EngineFailure("LOCAL::SANDBOX_DELETE_FAILED", "processes remain", retry_after=1.0)
                time.sleep(_PAUSE)

    def known(self) -> set[str]:
        """Names of all groups that exist, for sweeping those without a sandbox."""
        return {
            entry.name
            for hierarchy in self.hierarchies.values()
            for entry in os.scandir(hierarchy.base)
            if entry.is_dir()
        }

    def close(self) -> None:
        """Remove this server's own directories where no sandbox is left in them."""
        for hierarchy in self.hierarchies.values():
            _remove(hierarchy.base)


_V1_STATE: Final = ("THAWED", "FROZEN")


def detect(name: str) -> Cgroups:
    """What can be used on this machine, tried out; ``name`` is this server's directory in each hierarchy."""
    found: dict[Purpose, Hierarchy] = {}
    for version, mount, controllers in _mounted():
        base = _base(version, mount, name)
        if base is None:
            continue
        for purpose in PURPOSES:
            usable = purpose in controllers if version == 1 else _usable_v2(base, purpose)
            # v2 can kill what is frozen and says when freezing is done, so it is preferred for that where both exist.
            if usable and (purpose not in found or (purpose == "freezer" and version == 2)):
                found[purpose] = Hierarchy(version, base)
        if all(hierarchy.base != base for hierarchy in found.values()):
            _remove(base)
    used = {hierarchy.base for hierarchy in found.values()}
    for version, mount, _ in _mounted():
        if (base := mount / name) not in used and version:
            _remove(base)
    return Cgroups(found)


def _mounted() -> list[tuple[int, Path, set[str]]]:
    """(version, mount point, v1 controllers) of every cgroup file system."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            found.append((2 if kind == "cgroup2" else 1, Path(left.split()[4]), set(options.split(","))))
    return found


def _base(version: int, mount: Path, name: str) -> Path | None:
    """This server's directory in a hierarchy: at its top for root, where a restart finds it, else at its own place."""
    place = mount if os.geteuid() == 0 else _own(version, mount)
    if place is None:
        return None
    base, trial = place / name, place / name / "trial"
    try:
        if version == 2:
            _enable(place)
        base.mkdir(exist_ok=True)
        if version == 2:
            _enable(base)
        trial.mkdir(exist_ok=True)
        trial.rmdir()
    except OSError:
        with suppress(OSError):
            base.rmdir()
        return None
    return base


def _own(version: int, mount: Path) -> Path | None:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (not controllers) if version == 2 else mount.name in controllers.split(","):
            return mount / path.lstrip("/")
    return None


def _enable(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    for controller in ("memory", "cpu", "pids"):
        if controller in available:
            with suppress(OSError):  # busy where processes sit in it (v2's rule of no internal processes)
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _usable_v2(base: Path, purpose: Purpose) -> bool:
    if purpose == "freezer":
        return (base / "cgroup.freeze").exists()
    return purpose in (base / "cgroup.subtree_control").read_text().split()


def _limit(folder: Path, purpose: Purpose, version: int, limits: Limits) -> None:
    if purpose == "pids" and limits.pids:
        (folder / "pids.max").write_text(str(limits.pids))
    elif purpose == "cpu" and limits.cpu is not None:
        quota = max(1000, int(limits.cpu * PERIOD_MICROSECONDS))  # the kernel's least quota is 1 ms
        if version == 2:
            (folder / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
            (folder / "cpu.cfs_quota_us").write_text(str(quota))
    elif purpose == "memory" and limits.memory is not None:
        amount = str(limits.memory)
        (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).write_text(amount)
        swap, value = ("memory.swap.max", "0") if version == 2 else ("memory.memsw.limit_in_bytes", amount)
        if (folder / swap).exists():
            with suppress(OSError):  # swap accounting may be off
                (folder / swap).write_text(value)


def _remove(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
