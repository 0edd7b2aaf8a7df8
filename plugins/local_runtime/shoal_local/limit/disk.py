"""A bound for what one sandbox writes: its layers lie on a file system of their own, of that size.

As root that is an ext4 image, a sparse file in the sandbox's directory, mounted by a loop device that goes with the
sandbox's mount namespace. An ordinary user has only tmpfs, which takes memory and swap.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from shlex import join
from typing import Final, Literal

from shoal.errors import EngineFailure
from shoal_local.config import LocalSettings
from shoal_local.state.trees import remove_tree

Method = Literal["loop", "tmpfs"]
FOLDER: Final = "disk"
WORDS: Final[dict[Method, str]] = {"loop": "a file system of its own (ext4)", "tmpfs": "a tmpfs of its own (in memory)"}
_IMAGE: Final = "disk.img"
_SEARCH: Final = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_SECONDS: Final = 60.0


def choose(local: LocalSettings) -> Method | None:
    """By what a bound is kept here; None = not at all."""
    if local.disk_quota == "off":
        return None
    able = os.geteuid() == 0 and _mkfs() is not None and Path("/dev/loop-control").exists()
    if local.disk_quota == "tmpfs" or (local.disk_quota == "auto" and not able):
        return "tmpfs"
    return "loop"


def prepare(method: Method, box: Path, size: int) -> None:
    """What the layers in ``box/disk``, made and filled, need for `commands`. Blocks. Raises EngineFailure."""
    if method == "tmpfs":
        (box / f"{FOLDER}.new").mkdir(mode=0o755)
        return
    options = ["-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
    words = [_mkfs() or "mkfs.ext4", *options, "-d", str(box / FOLDER), str(box / _IMAGE), f"{size // 1024}k"]
    done = subprocess.run(  # noqa: S603 - no shell, and every word is this server's
        words, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
    )
    if done.returncode != 0:
        text = " / ".join(done.stderr.split("\n")).strip() or f"mkfs.ext4 failed ({done.returncode})"
        raise EngineFailure("LOCAL::SANDBOX_START_FAILED", f"cannot start: the sandbox's disk: {text}")


def commands(method: Method, box: Path, size: int, mount: str) -> list[str]:
    """Shell commands that put the bounded file system in place of ``box/disk``, with what was there."""
    folder, new = str(box / FOLDER), str(box / f"{FOLDER}.new")
    if method == "loop":
        return [join([mount, "-t", "ext4", "-o", "loop,noatime,nodev", str(box / _IMAGE), folder])]
    return [
        join([mount, "-t", "tmpfs", "-o", f"size={size},mode=755", "none", new]),
        join(["cp", "-a", f"{folder}/.", f"{new}/"]),
        join([mount, "--bind", new, folder]),
    ]


def clear_point(box: Path) -> None:
    """Remove what lies below the mounted file system: it has been copied there. No disk, or no room, is fine."""
    with suppress(OSError):
        for entry in (box / FOLDER).iterdir():
            remove_tree(entry)


def _mkfs() -> str | None:
    return shutil.which("mkfs.ext4", path=_SEARCH)
