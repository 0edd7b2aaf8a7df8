"""The part of a root that is the same for every sandbox from one image, worked out once.

With overlays, the image ``host`` is put together from a template: a small directory, made once, with the machine's
top directories as empty mount points, and with the directories that a sandbox may write to as its own. Every
sandbox's root is a private layer over it. Without overlays a sandbox gets such a directory of its own, and private
ones to write to.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from shoal_local.image.cache import RootFs
from shoal_local.root.mounts import BOX, Mount, Point, below, make_directory, overlay, points, reachable, read_only_bind

_VAR_TMP: Final = "var/tmp"
PRIVATE: Final = {"tmp": 0o1777, "root": 0o700, "home": 0o755, "run": 0o755, _VAR_TMP: 0o1777}
"""Directories of the sandbox's own, with their modes: other people's files, keys and sockets live in the machine's."""
EMPTY: Final = frozenset({"proc", "dev", "sys", "lost+found"})
LAYERED: Final = {"etc": (), "usr": ("local", *(f"local/{name}" for name in ("bin", "etc", "lib", "sbin", "share")))}
"""Directories of the host that get a writable layer, and where in them a sandbox may add; the rest is read-only."""


class Place(Struct, frozen=True):
    """How roots are built on this machine.

    Attributes:
        overlay: does an overlay file system work here?
        user_namespace: are the mounts made inside a user namespace (the server is not root)?
        owner: (uid, gid) of the sandboxes' files; None = the server's own.
        hidden: absolute paths of the host that no sandbox may see.
        dev: the template of /dev; None where bubblewrap makes its own.
        names: files of /etc that are the sandbox's own, resolver and hosts, and their content.
        templates: where templates of roots are kept; never removed, as running sandboxes may use them.
    """

    overlay: bool
    user_namespace: bool
    owner: tuple[int, int] | None
    hidden: tuple[Path, ...]
    dev: Path | None
    templates: Path
    names: dict[str, str] = {}


class Blueprint(Struct, frozen=True):
    """``folders`` (name, mode) and ``links`` (name, target) are made in the sandbox's directory before mounting."""

    folders: tuple[tuple[str, int], ...]
    links: tuple[tuple[str, str], ...]
    mounts: tuple[Mount, ...]
    layered: frozenset[str]
    template: Path | None
    known: tuple[Point, ...]


class Drawer:
    """Keeps the blueprints; a change of this machine's mounts or of the image's top directory makes a new one."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._kept: dict[tuple[Path, bool], tuple[str, int, Blueprint]] = {}
        self._lock = threading.Lock()

    def get(self, rootfs: RootFs) -> Blueprint:
        """The blueprint for an image. Blocks."""
        mountinfo, stamp = Path("/proc/self/mountinfo").read_text(), rootfs.path.stat().st_mtime_ns
        with self._lock:
            kept = self._kept.get((rootfs.path, rootfs.host))
            if kept is None or kept[:2] != (mountinfo, stamp):
                drawn = self._draw(rootfs, reachable(points(mountinfo)))
                kept = self._kept[rootfs.path, rootfs.host] = (mountinfo, stamp, drawn)
        return kept[2]

    def _draw(self, rootfs: RootFs, known: Sequence[Point]) -> Blueprint:
        if self.place.overlay and not rootfs.host:
            mounts = [self._overlay("", (rootfs.path,), "")]
            folders = [("upper", 0o755), ("work", 0o755)]
            return Blueprint(tuple(folders), (), tuple(mounts), frozenset(), None, tuple(known))
        top = _Top(rootfs, known, layered=self.place.overlay)
        return self._layers(top) if self.place.overlay else self._directories(top)

    def _layers(self, top: _Top) -> Blueprint:
        template = self._template(top)
        folders = [("upper", 0o755), ("work", 0o755)]
        mounts = [self._overlay("", (template,), "")]
        for name in sorted(top.layered):
            folders += [(f"upper-{name}", top.mode(name)), (f"work-{name}", 0o755)]
            mounts.append(self._overlay(f"/{name}", (template / name, top.path / name), f"-{name}"))
        mounts += top.read_only()
        if (top.path / _VAR_TMP).is_dir():
            folders.append(("var-tmp", 0o1777))
            mounts.append(Mount("bind", f"/{_VAR_TMP}", f"{BOX}/var-tmp"))
        return Blueprint(tuple(folders), (), tuple(mounts), top.layered, template, top.known)

    def _directories(self, top: _Top) -> Blueprint:
        folders = [("root", 0o755), ("private", 0o755), *((f"root/{name}", 0o755) for name in sorted(top.folders))]
        links = [(f"root/{name}", target) for name, target in top.links.items()]
        mounts = [Mount("bind", "", f"{BOX}/root"), *top.read_only()]
        for name, mode in PRIVATE.items():
            if "/" not in name or (top.path / name).is_dir():
                folders.append((f"private/{name.replace('/', '-')}", mode))
                mounts.append(Mount("bind", f"/{name}", f"{BOX}/private/{name.replace('/', '-')}"))
        return Blueprint(tuple(folders), tuple(links), tuple(mounts), frozenset(), None, top.known)

    def _template(self, top: _Top) -> Path:
        """The template directory for this shape of a root, named after the shape."""
        folders: dict[str, int] = {name: PRIVATE.get(name, 0o755) for name in sorted(top.folders)}
        for name in sorted(top.layered):
            for part in LAYERED[name]:
                if (top.path / name / part).is_dir() and not (top.path / name / part).is_symlink():
                    folders[f"{name}/{part}"] = 0o755
        shape = msgspec.json.encode([folders, top.links, self.place.owner])
        template = self.place.templates / hashlib.sha256(shape).hexdigest()[:16]
        if not template.exists():
            draft = template.with_suffix(f".{os.getpid()}")
            draft.mkdir(mode=0o755)
            make_all(draft, folders.items(), top.links.items(), self.place.owner)
            draft.rename(template)
        return template

    def _overlay(self, target: str, lower: Iterable[Path], suffix: str) -> Mount:
        upper, work = f"{BOX}/upper{suffix}", f"{BOX}/work{suffix}"
        return overlay(target, lower, upper, work, user_namespace=self.place.user_namespace)


class _Top:
    """The top of an image: its directories, its symlinks, and which directories are layered or read-only."""

    def __init__(self, rootfs: RootFs, known: Sequence[Point], *, layered: bool) -> None:
        self.path = rootfs.path
        self.known = tuple(known)
        self.folders, self.links = {"proc", "dev", "sys", "tmp", "root", "home", "run"}, dict[str, str]()
        for entry in os.scandir(rootfs.path):
            if entry.is_symlink():
                self.links[entry.name] = str(Path(entry.path).readlink())
            elif entry.is_dir():
                self.folders.add(entry.name)
        self.folders -= self.links.keys()
        # Overlayfs does not take a directory with mounts below it into a user namespace.
        able = {name for name in LAYERED if name in self.folders and not self._mounted_below(name)}
        self.layered = frozenset(able if layered else ())

    def mode(self, name: str) -> int:
        return (self.path / name).stat().st_mode & 0o1777

    def read_only(self) -> Iterator[Mount]:
        for name in sorted(self.folders - self.layered - EMPTY - PRIVATE.keys()):
            yield from read_only_bind(self.path / name, f"/{name}", self.known)

    def _mounted_below(self, name: str) -> bool:
        folder = self.path / name
        return any(below(point, folder) for point in self.known)


def make_all(
    folder: Path,
    folders: Iterable[tuple[str, int]],
    links: Iterable[tuple[str, str]],
    owner: tuple[int, int] | None,
) -> None:
    """Make directories and symlinks below ``folder``, in order."""
    base = str(folder)
    for name, mode in folders:
        make_directory(f"{base}/{name}", mode, owner)
    for name, target in links:
        Path(base, name).symlink_to(target)
