"""Preparing the root of one sandbox: its private directories, its layers, and the list of mounts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal_local.mounts import (
    EMPTY,
    LAYERED,
    PRIVATE,
    Mount,
    Point,
    devices,
    make_directory,
    mirror,
    overlay,
    points,
    read_only_bind,
)
from shoal_local.rootfs import RootFs
from shoal_local.rootpath import resolve

_LOCAL: Final = ("bin", "etc", "include", "lib", "sbin", "share", "src")
_FORBIDDEN: Final = frozenset({"proc", "dev", "sys"})
_NETWORK_FILES: Final = ("resolv.conf", "hosts")


class Bind(Struct, frozen=True):
    """A directory or file of the host in the sandbox; ``identity`` is its device and inode number."""

    source: Path
    target: str
    read_only: bool
    identity: str
    directory: bool = True


class Place(Struct, frozen=True):
    """How roots are built on this machine.

    Attributes:
        overlay: does an overlay file system work here?
        user_namespace: are the mounts made inside a user namespace (the server is not root)?
        owner: (uid, gid) of the sandboxes' files; None = the server's own.
        hidden: absolute paths of the host that no sandbox may see.
        dev: the template of /dev; None where bubblewrap makes its own.
    """

    overlay: bool
    user_namespace: bool
    owner: tuple[int, int] | None
    hidden: tuple[Path, ...]
    dev: Path | None


class Root:
    """Builds the root of the sandbox whose directory is ``box``. `mounts` may be called once."""

    def __init__(self, box: Path, rootfs: RootFs, place: Place) -> None:
        self._box = box
        self._rootfs = rootfs
        self._place = place
        self._known: Sequence[Point] = points()
        self._whole = place.overlay and not rootfs.host

    def mounts(self, binds: Sequence[Bind], workdir: str) -> list[Mount]:
        """Make the directories and return the steps, in order."""
        for name in ("root", "upper", "work", "private"):
            make_directory(self._box / name, 0o755, self._place.owner)
        steps = list(self._image() if self._whole else self._skeleton())
        steps += [Mount("proc", "/proc", options="nosuid,nodev,noexec")]
        if self._place.dev is not None:
            steps += devices(self._place.dev)
        steps += self._masks()
        self._ensure(workdir, directory=True)
        for bind in binds:
            inside = self._ensure(bind.target, directory=bind.directory)
            if bind.read_only:
                steps += read_only_bind(bind.source, inside, self._known)
            else:
                steps.append(Mount("bind", inside, str(bind.source)))
        return steps

    def check_target(self, path: str) -> None:
        """Raises InvalidRequest if nothing can be mounted at ``path`` in this image."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts or ".." in parts or parts[0] in _FORBIDDEN:
            raise InvalidRequest(INVALID_PARAMETER, f"mountPath {path} is not a place where a volume can be mounted")
        real = self._inside(path)
        if self._writable(real) is None and not (self._rootfs.path / real).exists():
            raise InvalidRequest(
                INVALID_PARAMETER,
                f"mountPath {path} does not exist, and the image is read-only there; use /{parts[-1]}",
            )

    def _image(self) -> Iterator[Mount]:
        box, owner = self._box, self._place.owner
        lower = self._rootfs.path
        yield overlay("", lower, box / "upper", box / "work", user_namespace=self._place.user_namespace)
        for name in ("proc", "dev", "tmp", "etc"):
            if not (lower / name).is_symlink():
                mode = 0o1777 if name == "tmp" else 0o755
                if not (lower / name).exists():
                    make_directory(box / "upper" / name, mode, owner)
        self._network_files()

    def _network_files(self) -> None:
        """The network is the host's, so are its names; a copy, which the sandbox may change."""
        if not (self._rootfs.path / "etc").is_symlink():
            etc = mirror(self._rootfs.path, self._box / "upper", ("etc",), self._place.owner)
            for name in _NETWORK_FILES:
                source = Path("/etc", name)
                if source.is_file():
                    shutil.copyfile(source, etc / name)
                    if self._place.owner is not None:
                        os.chown(etc / name, *self._place.owner)

    def _skeleton(self) -> Iterator[Mount]:
        """A root of its own whose top directories are the image's: layered, read-only, private or empty."""
        box, owner, image = self._box, self._place.owner, self._rootfs.path
        yield Mount("bind", "", str(box / "root"))
        names = {entry.name: entry for entry in os.scandir(image)}
        for name, entry in names.items():
            if entry.is_symlink():
                (box / "root" / name).symlink_to(Path(entry.path).readlink())
            elif entry.is_dir():
                make_directory(box / "root" / name, 0o755, owner)
                if name not in EMPTY and name not in PRIVATE:
                    yield from self._top(name)
        for name in EMPTY | PRIVATE.keys():
            top = box / "root" / name
            if "/" not in name and not top.exists() and not top.is_symlink():
                make_directory(top, 0o755, owner)
        for name, mode in PRIVATE.items():
            if (box / "root" / name).is_dir() or (image / name).is_dir():
                folder = box / "private" / name.replace("/", "-")
                make_directory(folder, mode, owner)
                yield Mount("bind", f"/{name}", str(folder))

    def _top(self, name: str) -> Iterator[Mount]:
        source = self._rootfs.path / name
        if not self._layered(name):
            yield from read_only_bind(source, f"/{name}", self._known)
            return
        upper, work = self._box / "upper" / name, self._box / "work" / name
        make_directory(upper, source.stat().st_mode & 0o1777, self._place.owner)
        work.mkdir()
        if name == "usr" and (source / "local").is_dir():
            local = mirror(source, upper, ("local",), self._place.owner)
            for part in _LOCAL:
                if (source / "local" / part).is_dir() and not (source / "local" / part).is_symlink():
                    mirror(source / "local", local, (part,), self._place.owner)
        yield overlay(f"/{name}", source, upper, work, user_namespace=self._place.user_namespace)

    def _layered(self, name: str) -> bool:
        """Overlayfs does not take a directory with mounts below it into a user namespace."""
        source = self._rootfs.path / name
        return (
            self._place.overlay
            and name in LAYERED
            and not any(point.path.is_relative_to(source) for point in self._known)
        )

    def _masks(self) -> Iterator[Mount]:
        if not self._rootfs.host:
            return
        for path in self._place.hidden:
            inside = str(path).lstrip("/")
            if any(inside == name or inside.startswith(f"{name}/") for name in PRIVATE.keys() | EMPTY):
                continue
            if path.is_dir():
                yield Mount("tmpfs", f"/{inside}", options="size=4k,mode=755", read_only=True)
            elif path.exists():
                empty = self._box / "empty"
                empty.touch(mode=0o444)
                yield Mount("bind", f"/{inside}", str(empty), read_only=True)

    def _inside(self, path: str) -> str:
        """The path without symlinks and leading slash; in a private directory, which is empty, nothing is resolved."""
        clean = "/".join(part for part in path.split("/") if part not in ("", "."))
        if not self._whole and any(clean == name or clean.startswith(f"{name}/") for name in PRIVATE):
            return clean
        return str(resolve(self._rootfs.path, path).relative_to(self._rootfs.path))

    def _writable(self, inside: str) -> tuple[Path, Path, str] | None:
        """(lower, upper, rest) of the layer that holds a path; None where the root is read-only."""
        image, box = self._rootfs.path, self._box
        if self._whole:
            return image, box / "upper", inside
        for name in sorted(PRIVATE, key=len, reverse=True):
            if inside == name or inside.startswith(f"{name}/"):
                return Path("/nonexistent"), box / "private" / name.replace("/", "-"), inside[len(name) + 1 :]
        top, _, rest = inside.partition("/")
        if self._layered(top) and (image / top).is_dir():
            return image / top, box / "upper" / top, rest
        if not (image / top).exists():
            return Path("/nonexistent"), box / "root", inside
        return None

    def _ensure(self, path: str, *, directory: bool) -> str:
        """Make ``path`` exist in the root that is being built; returns it without symlinks, absolute inside."""
        inside = self._inside(path)
        layer = self._writable(inside)
        if layer is not None and not (layer[0] / layer[2]).exists():
            lower, upper, rest = layer
            parts = [part for part in rest.split("/") if part]
            folder = mirror(lower, upper, parts if directory else parts[:-1], self._place.owner)
            if not directory:
                (folder / parts[-1]).touch()
        return f"/{inside}"
