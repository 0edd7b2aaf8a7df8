"""Preparing the root of one sandbox: its directories, its mount points, and the list of mounts."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from shoal.errors import Conflict, EngineFailure, InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal_local.agent.placement import FOLDER
from shoal_local.image.cache import RootFs
from shoal_local.root.binds import Bind, direct, make_aside, mounts
from shoal_local.root.blueprint import EMPTY, PRIVATE, Blueprint, Drawer, make_all
from shoal_local.root.mounts import Mount, devices, mirror, stacked, write_file
from shoal_local.root.paths import resolve, shown
from shoal_local.snapshot.copying import CopyJob, copy_folder
from shoal_local.snapshot.library import NO_LAYER, LayerSnapshot, captured_parts, overlaid

_FORBIDDEN: Final = frozenset({"proc", "dev", "sys"})
_NETWORK_FILES: Final = ("resolv.conf", "hosts")
_NOTHING: Final = Path("/nonexistent")


class Root:
    """The root of the sandbox whose directory is ``box``, made of an image, or of a snapshot over it.

    `mounts` may be called once. What a snapshot holds was written by a sandbox: no link in it is followed here.
    """

    def __init__(self, box: Path, rootfs: RootFs, drawer: Drawer, snapshot: LayerSnapshot | None = None) -> None:
        self._box = box
        self._rootfs = rootfs
        self._snapshot = snapshot
        self._place = drawer.place
        self._blueprint: Blueprint = drawer.get(rootfs)
        self._whole = self._place.overlay and not rootfs.host
        self.places: list[str] = []
        """Where the volumes go, without links; known after `mounts`."""

    def mounts(self, binds: Sequence[Bind], workdir: str, *, staged: bool, agent: Path | None = None) -> list[Mount]:
        """Make the directories; return the steps in order. Sources and targets may hold `shoal_local.root.mounts.BOX`.

        ``agent`` is the folder of its files. ``staged``: is the root built by mount(8), before the sandbox's own
        command is started in it?
        """
        make_all(self._box, self._blueprint.folders, self._blueprint.links, self._place.owner)
        steps = [*self._layers_below(), Mount("proc", "/proc", options="nosuid,nodev,noexec")]
        if self._place.dev is not None:
            steps += devices(self._place.dev)
        steps += self._masks()
        if self._whole:
            self._complete_image()
        else:
            steps += self._own_names()
        self._ensure(workdir, directory=True)
        if agent is not None:
            steps.append(Mount("bind", self._ensure(FOLDER, directory=True, own=True), str(agent), read_only=True))
        self.places = [
            bind.target if bind.covers is not None else self._ensure(bind.target, directory=bind.directory)
            for bind in binds
        ]
        if not staged:
            return steps + direct(binds, self.places, self._blueprint.known)
        make_aside(binds, self._box)
        return steps + mounts(binds, self._blueprint.known)

    def check_target(self, path: str) -> None:
        """Raises InvalidRequest if nothing can be mounted at ``path`` in this image."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if not parts or ".." in parts or parts[0] in _FORBIDDEN or "\n" in path or "\0" in path:
            raise InvalidRequest(INVALID_PARAMETER, f"mountPath {path!r} is not a place where a volume can be mounted")
        real = self._inside(path)
        if self._layer(real) is None and not (self._rootfs.path / real).exists():
            raise InvalidRequest(
                INVALID_PARAMETER,
                f"mountPath {path} does not exist, and the image is read-only there; use /{parts[-1]}",
            )

    def check_snapshot(self) -> None:
        """Raises Conflict if roots are built in another way now than when the snapshot was taken."""
        if self._snapshot is None:
            return
        here = captured_parts([name for name, _ in self._blueprint.folders])
        if not set(self._snapshot.origin.parts) <= set(here):
            raise Conflict(
                NO_LAYER,
                "The snapshot was taken where sandboxes had another kind of root ([local] overlay, isolation); "
                "it cannot be restored as the server is set up now.",
            )

    def _layers_below(self) -> Sequence[Mount]:
        """The mounts of every sandbox of the image, with those of the snapshot between."""
        if self._snapshot is None:
            return self._blueprint.mounts
        layers, parts = self._snapshot.layers, self._snapshot.origin.parts
        for name in overlaid(parts):
            (self._box / name).chmod((layers / name).stat().st_mode & 0o1777)
        made = [name for name, _ in (*self._blueprint.folders, *self._blueprint.links)]
        skip = {"root": [FOLDER.strip("/"), *(name.removeprefix("root/") for name in made)]}
        copied = [name for name in parts if name not in overlaid(parts)]
        if copied:
            copy_folder(layers, self._box, CopyJob(copied, skip=skip))
        return [stacked(mount, layers) for mount in self._blueprint.mounts]

    def _between(self, upper: Path) -> Path | None:
        """The snapshot's layer below one of the sandbox's own."""
        if self._snapshot is None or upper.name not in overlaid(self._snapshot.origin.parts):
            return None
        return self._snapshot.layers / upper.name

    def _complete_image(self) -> None:
        """Mount points that an image may lack, and name service: of the sandbox's own network, or else the host's."""
        lower, upper, owner = self._rootfs.path, self._box / "upper", self._place.owner
        for name in ("proc", "dev", "tmp"):
            if not (lower / name).exists() and not (lower / name).is_symlink():
                make_all(upper, [(name, PRIVATE.get(name, 0o755))], (), owner)
        if (lower / "etc").is_symlink():
            return
        etc = mirror(lower, upper, ("etc",), owner, self._between(upper))
        for name in _NETWORK_FILES:
            if (source := Path("/etc", name)).is_file() and not self._place.names:
                shutil.copyfile(source, etc / name)
                if owner is not None:
                    os.chown(etc / name, *owner)
        self._write_names(etc)

    def _write_names(self, etc: Path) -> None:
        for name, text in self._place.names.items():
            write_file(etc / name, text, self._place.owner)

    def _own_names(self) -> Iterator[Mount]:
        """The sandbox's own resolver and hosts file in place of the machine's."""
        if "etc" in self._blueprint.layered:
            self._write_names(self._box / "upper-etc")
            return
        for name, text in self._place.names.items():
            if (self._rootfs.path / "etc" / name).is_file():
                write_file(self._box / f"etc-{name}", text, self._place.owner)
                yield Mount("bind", f"/etc/{name}", str(self._box / f"etc-{name}"), read_only=True)

    def _masks(self) -> Iterator[Mount]:
        if not self._rootfs.host:
            return
        for path in self._place.hidden:
            inside = str(path).lstrip("/")
            if any(inside == name or inside.startswith(f"{name}/") for name in (*PRIVATE, *EMPTY)):
                continue
            if path.is_dir():
                self._keep_place(inside)
                yield Mount("tmpfs", f"/{inside}", options="size=4k,mode=755", read_only=True)
            elif not self._white_out(inside) and path.exists():
                empty = self._box / "empty"
                empty.touch(mode=0o444)
                yield Mount("bind", f"/{inside}", str(empty), read_only=True)

    def _keep_place(self, inside: str) -> None:
        """Whatever a snapshot has there, the directory that is hidden is a directory, and in its place."""
        top, _, rest = inside.partition("/")
        upper = self._box / f"upper-{top}"
        if top in self._blueprint.layered and self._between(upper) is not None:
            mirror(self._rootfs.path / top, upper, rest.split("/"), self._place.owner, self._between(upper))

    def _white_out(self, inside: str) -> bool:
        """Hide a file of a layered directory for good, whoever replaces it there (overlayfs.rst, "whiteouts")."""
        top, _, rest = inside.partition("/")
        if top not in self._blueprint.layered:
            return False
        parts = rest.split("/")
        upper = self._box / f"upper-{top}"
        folder = mirror(self._rootfs.path / top, upper, parts[:-1], self._place.owner, self._between(upper))
        try:
            os.mknod(folder / parts[-1], stat.S_IFCHR, 0)
        except OSError:
            return False  # not for every user before Linux 5.8
        return True

    def _inside(self, path: str) -> str:
        """The path without symlinks and leading slash; in a private directory, which is empty, nothing is resolved."""
        clean = "/".join(part for part in path.split("/") if part not in ("", "."))
        if not self._whole and any(clean == name or clean.startswith(f"{name}/") for name in PRIVATE):
            return clean
        return str(resolve(self._rootfs.path, path).relative_to(self._rootfs.path))

    def _layer(self, inside: str) -> tuple[Path, Path, str] | None:
        """(lower, upper, rest) of the layer that a new path would be made in; None where the root is read-only."""
        image, box, template = self._rootfs.path, self._box, self._blueprint.template
        top, _, rest = inside.partition("/")
        if self._whole:
            return image, box / "upper", inside
        if inside == "var/tmp" or inside.startswith("var/tmp/"):
            return _NOTHING, box / ("var-tmp" if template else "private/var-tmp"), inside[len("var/tmp/") :]
        if top in self._blueprint.layered:
            return image / top, box / f"upper-{top}", rest
        if top in PRIVATE and template is None:
            return _NOTHING, box / "private" / top, rest
        if top in PRIVATE or not (image / top).exists():
            return template or _NOTHING, box / ("upper" if template else "root"), inside
        return None

    def _ensure(self, path: str, *, directory: bool, own: bool = False) -> str:
        """Make ``path`` exist in the root that is being built; returns it without symlinks, absolute inside.

        ``own``: in the sandbox's own layer, whatever a snapshot has there.
        """
        inside = self._inside(path)
        layer = self._layer(inside)
        if layer is not None and (own or not self._there(*layer)):
            lower, upper, rest = layer
            parts = [part for part in rest.split("/") if part]
            wanted, between = parts if directory else parts[:-1], self._between(upper)
            try:
                folder = mirror(lower, upper, wanted, self._place.owner, between)
                if not directory:
                    (folder / parts[-1]).touch()
            except FileExistsError:
                text = f"cannot start: /{inside} is in the way of what belongs there"
                raise EngineFailure("LOCAL::SANDBOX_START_FAILED", text) from None
        return f"/{inside}"

    def _there(self, lower: Path, upper: Path, rest: str) -> bool:
        between = self._between(upper)
        if self._snapshot is None:
            return (lower / rest).exists()
        return shown([upper, lower] if between is None else [between, lower], rest)
