"""What a sandbox runs, out of its plan: the command, its environment, and the directory that it starts in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.plan import WorkloadPlan
from shoal_local.image.cache import RootFs
from shoal_local.root.blueprint import PRIVATE
from shoal_local.root.paths import enterable
from shoal_local.run.scripts import SandboxProgram
from shoal_local.run.spawn import TOOL_PATH, Isolation

HOME: Final = "/root"


def program_of(
    plan: WorkloadPlan, rootfs: RootFs, isolation: Isolation, defaults: Mapping[str, str | None], *, home: Path
) -> SandboxProgram:
    """The program of a plan.

    Args:
        defaults: the operator's variables for every sandbox.
        home: the sandbox's home directory where it is not isolated.
    """
    bare = isolation.method == "none"
    base = {"PATH": TOOL_PATH, "HOME": str(home) if bare else HOME, "LANG": "C.UTF-8"}
    env: dict[str, str | None] = {**base, **rootfs.env, **defaults, **plan.env, "OPENSANDBOX_ID": plan.id}
    kept = {name: value for name, value in env.items() if value is not None}
    if bare:
        return SandboxProgram(tuple(plan.argv), kept, str(home))
    workdir = rootfs.workdir or _home(kept.get("HOME", HOME), plan, rootfs, isolation)
    return SandboxProgram(tuple(plan.argv), kept, _absolute(workdir))


def _home(home: str, plan: WorkloadPlan, rootfs: RootFs, isolation: Isolation) -> str:
    """The home directory; ``/`` where the sandbox's user cannot enter it, as files of ``dir:`` keep their owners."""
    path = os.path.normpath(_absolute(home))
    tops = [volume.mount_path.rstrip("/") for volume in plan.volumes]
    if rootfs.host or not isolation.overlay:
        tops += [f"/{name}" for name in PRIVATE]
    if any(path == top or path.startswith(f"{top}/") for top in tops):
        return home
    uid, gid = isolation.user
    groups = {gid} if isolation.drop is not None else {gid, *os.getgroups()}
    return home if enterable(rootfs.path, path, uid, groups) else "/"


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


def check_text(plan: WorkloadPlan) -> None:
    """Refuse what cannot be said to a program: NUL, and a variable without a name. Raises InvalidRequest."""
    if any("\0" in word for word in plan.command) or not plan.argv[0]:
        raise InvalidRequest(INVALID_PARAMETER, "entrypoint: a NUL character, or no command")
    _check_env(plan.env)


def _check_env(env: Mapping[str, str | None]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in (value or ""):
            raise InvalidRequest(INVALID_PARAMETER, "env: a name is empty or holds '=', or there is a NUL character")
