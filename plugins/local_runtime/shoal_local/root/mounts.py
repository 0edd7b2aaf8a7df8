"""The mounts that make up a sandbox's root, and the arguments for mount(8) and bubblewrap.

A root is built in the sandbox's own mount namespace only. With an overlay file system the sandbox may change what its
user may, and every change lands in its own directory; without one the root is read-only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

BOX: Final = "@BOX@"
"""Stands for the sandbox's directory in the sources and options of mounts that are shared by many."""
DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")


class Mount(Struct, frozen=True):
    """One step; ``target`` is absolute inside the new root, or begins with `BOX`; ``options`` are mount(8)'s."""

    kind: Literal["bind", "overlay", "proc", "devpts", "tmpfs", "remount"]
    target: str
    source: str = ""
    options: str = ""
    read_only: bool = False


class Point(Struct, frozen=True):
    """A mount of this machine, with the flags that a new mount of it must keep; ``number`` as in mountinfo."""

    path: Path
    flags: str
    number: int = 0


def points(mountinfo: str) -> list[Point]:
    """The mounts that a process sees, from the text of its /proc/self/mountinfo (proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        words = line.split(" ")
        kept = [word for word in words[5].split(",") if word not in ("rw", "ro", "relatime")]
        found.append(Point(Path(_unescape(words[4])), ",".join(kept), int(words[0])))
    return found


def reachable(known: Iterable[Point]) -> list[Point]:
    """Those to which this user has a way, and that no later mount covers: mount(8) and a sandbox find no others."""
    return [point for point in known if _has_way(point)]


def _has_way(point: Point) -> bool:
    try:
        handle = os.open(point.path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # neither closed nor gone, but broken
    try:
        return f"mnt_id:\t{point.number}\n" in Path(f"/proc/self/fdinfo/{handle}").read_text()
    finally:
        os.close(handle)


def below(point: Point, folder: Path) -> bool:
    """Is it at ``folder`` or below? For many points and folders, which pathlib compares slowly."""
    return f"{point.path}/".startswith(f"{str(folder).rstrip('/')}/")


def read_only_bind(source: Path, target: str, known: Iterable[Point]) -> list[Mount]:
    """A recursive read-only bind. The flag holds for one mount only, so each mount below is made read-only as well."""
    steps = [Mount("bind", target, str(source), read_only=True)]
    for point in known:
        if below(point, source) and point.path != source:
            inside = f"{target}/{str(point.path)[len(str(source).rstrip('/')) + 1 :]}"
            steps.append(Mount("remount", inside, options=point.flags, read_only=True))
    return steps


def devices(template: Path) -> list[Mount]:
    """A minimal /dev: a shared read-only directory of mount points, harmless devices, its own pts and shm."""
    return [
        Mount("bind", "/dev", str(template), read_only=True),
        *(Mount("bind", f"/dev/{name}", f"/dev/{name}") for name in DEVICES),
        Mount("devpts", "/dev/pts", options="newinstance,ptmxmode=0666,mode=620"),
        Mount("tmpfs", "/dev/shm", options="nosuid,nodev,mode=1777"),  # noqa: S108 - the sandbox's own
    ]


def make_device_template(folder: Path) -> None:
    """The directory that `devices` binds; made once for all sandboxes."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # whatever the server's umask
    for name in DEVICES:
        (folder / name).touch()
    for name in ("pts", "shm"):
        (folder / name).mkdir(exist_ok=True)
    links = {"fd": "/proc/self/fd", "ptmx": "pts/ptmx"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(target)


def overlay(target: str, lower: Iterable[Path], upper: str, work: str, *, user_namespace: bool) -> Mount:
    """A writable layer over ``lower``. ``volatile`` spares a sync of the whole file system when the sandbox ends."""
    below = ":".join(_quote(path) for path in lower)
    layers = f"lowerdir={below},upperdir={upper},workdir={work},volatile"
    return Mount("overlay", target, options=layers + (",userxattr" if user_namespace else ""))


def stacked(mount: Mount, layers: Path) -> Mount:
    """The overlay with the layer of a snapshot between its own and what lies below; ``layers`` holds it by its name."""
    found = re.search(r"upperdir=[^,]*/([^,/]+)", mount.options)
    if mount.kind != "overlay" or found is None or not (layers / found[1]).is_dir():
        return mount
    return replace(mount, options=mount.options.replace("lowerdir=", f"lowerdir={_quote(layers / found[1])}:", 1))


def layer_name_problem(path: Path) -> str | None:
    """Why the server cannot keep layers at this path; None if it can. Such names would have to be quoted thrice."""
    bad = sorted(set(str(path)) & set(',:"\\ \t\n#'))
    return f"{path} holds {bad[0]!r}, which is not possible in the path of an overlay" if bad else None


def fstab(mounts: Iterable[Mount], root: Path, box: Path) -> str:
    """The mounts as fstab(5) lines for ``mount --all``, below ``root``."""
    lines = [_fstab_line(mount, str(root)) for mount in mounts]
    return "".join(f"{line} 0 0\n" for line in lines).replace(BOX, str(box))


def _fstab_line(mount: Mount, root: str) -> str:
    target = _escape((mount.target if mount.target.startswith(BOX) else f"{root}{mount.target}").rstrip("/"))
    read_only = ",ro" if mount.read_only else ""
    if mount.kind == "bind":
        return f"{_escape(mount.source)} {target} none rbind{read_only}"
    if mount.kind == "remount":
        flags = f",{mount.options}" if mount.options else ""
        return f"none {target} none remount,bind{read_only}{flags}"
    return f"{mount.kind} {target} {mount.kind} {_escape(mount.options) or 'defaults'}{read_only}"


def bubblewrap(mounts: Iterable[Mount], box: Path) -> list[str]:
    """The mounts as bwrap arguments; it makes recursive binds read-only by itself and knows no overlay here."""
    words: list[str] = []
    for mount in mounts:
        if mount.kind == "bind":
            words += [
                "--ro-bind" if mount.read_only else "--bind",
                mount.source.replace(BOX, str(box)),
                mount.target or "/",
            ]
        elif mount.kind == "tmpfs":
            words += ["--tmpfs", mount.target]
    return words


def _quote(path: Path) -> str:
    """As one of several lower directories."""
    return re.sub(r"([\\:])", r"\\\1", str(path))


def _escape(text: str) -> str:
    """fstab(5): blanks and backslashes as octal."""
    return re.sub(r"[\\\s#]", lambda match: f"\\{ord(match[0]):03o}", text)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mirror(
    lower: Path, upper: Path, parts: Iterable[str], owner: tuple[int, int] | None, between: Path | None = None
) -> Path:
    """Make the directories ``parts`` below ``upper``, with the modes that the layers under it have for them.

    ``between`` is the layer of a snapshot, which a sandbox wrote: no link in it is followed.
    """
    for part in parts:
        lower, upper = lower / part, upper / part
        between = between / part if between is not None and is_directory(between / part) else None
        if not is_directory(upper):
            found = between or lower
            mode = found.stat().st_mode & 0o1777 if found.is_dir() else 0o755
            make_directory(upper, mode, owner)
    return upper


def is_directory(path: Path) -> bool:
    """Is it a directory, and not a link to one?"""
    return path.is_dir() and not path.is_symlink()


def make_directory(path: str | Path, mode: int, owner: tuple[int, int] | None) -> None:
    """A directory with exactly this mode, whatever the umask, owned by the sandbox."""
    os.mkdir(path)  # noqa: PTH102 - this and the next run dozens of times for each sandbox, and pathlib is slow
    os.chmod(path, mode)  # noqa: PTH101
    if owner is not None:
        os.chown(path, *owner)


def write_file(path: Path, text: str, owner: tuple[int, int] | None) -> None:
    """A file that everybody may read, owned by the sandbox, in place of whatever is there."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    if owner is not None:
        os.chown(path, *owner)
