"""Layers of a container image, applied to a directory.

Follows the OCI image specification's layer format (layer.md): changesets are tar archives, ``.wh.name`` removes a
file of the layers below, ``.wh..wh..opq`` hides everything that they had in a directory. Archives are not trusted:
nothing is written outside the directory, device nodes are left out (a sandbox gets its own /dev), and ownership and
set-id bits are dropped, because a sandbox has one user only.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO, Final, cast

from shoal.errors import EngineFailure
from shoal_local.image.bounds import CODE, Bounds, Budget, Member, Metered
from shoal_local.root.paths import resolve

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"


class Unpacker:
    """Applies layers in order to ``root``, an empty directory; `finish` sets what must come last.

    Args:
        owner: (uid, gid) that every file is given; None leaves them to this process.
        budget: how much may still be read; None = as much as the defaults.
    """

    def __init__(self, root: Path, owner: tuple[int, int] | None, budget: Budget | None = None) -> None:
        self._root = root
        self._owner = owner
        self._budget = budget or Budget(Bounds())
        self._modes: dict[Path, int] = {}
        self.skipped_devices = 0

    def apply(self, layer: IO[bytes]) -> None:
        """Apply one uncompressed tar stream. Raises EngineFailure if it is damaged or tries to escape."""
        fresh: set[Path] = set()
        try:
            metered = cast("IO[bytes]", Metered(layer, self._budget))
            with tarfile.open(fileobj=metered, mode="r|", tarinfo=Member) as archive:
                for member in archive:
                    self._budget.entry()
                    self._member(archive, member, fresh)
        except (tarfile.TarError, EOFError) as error:
            raise EngineFailure(CODE, f"a layer is not a readable tar archive: {error}") from None

    def finish(self) -> None:
        """Set the directories' modes; done last because a read-only one could not be filled."""
        for path, mode in sorted(self._modes.items(), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.chmod(mode)

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, fresh: set[Path]) -> None:
        parts = _parts(member.name)
        if not parts:
            if member.isdir():
                self._modes[self._root] = member.mode & 0o1777
            return
        folder = self._folder(parts[:-1])
        name = parts[-1]
        if name == _OPAQUE:
            for entry in list(folder.iterdir()):
                if not any(path == entry or entry in path.parents for path in fresh):
                    self._remove(entry)
            return
        if name.startswith(_WHITEOUT):
            self._remove(folder / name.removeprefix(_WHITEOUT))
            return
        target = folder / name
        self._write(archive, member, target)
        fresh.add(target)

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        if member.isdir():
            if target.is_symlink() or not target.is_dir():
                self._remove(target)
                target.mkdir()
            target.chmod(0o700)
            self._modes[target] = member.mode & 0o1777
        elif member.isdev() and not member.isfifo():
            self.skipped_devices += 1
            return
        else:
            self._remove(target)
            if member.issym():
                target.symlink_to(member.linkname)
            elif member.islnk():
                self._hardlink(member, target)
                return
            elif member.isfifo():
                os.mkfifo(target, member.mode & 0o777)
            else:
                self._regular(archive, member, target)
        if self._owner is not None:
            os.chown(target, *self._owner, follow_symlinks=False)

    def _regular(self, archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        content = archive.extractfile(member)
        if content is None:
            raise EngineFailure(CODE, f"{member.name} in a layer has no content and no known type")
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as stream:
            shutil.copyfileobj(content, stream, 1 << 20)
            os.fchmod(handle, member.mode & 0o777)
        os.utime(target, (member.mtime, member.mtime))

    def _hardlink(self, member: tarfile.TarInfo, target: Path) -> None:
        parts = _parts(member.linkname)
        source = self._folder(parts[:-1]) / parts[-1] if parts else self._root
        if source.is_symlink() or not source.is_file():
            raise EngineFailure(CODE, f"{member.name} links to {member.linkname}, which is no file of the image")
        os.link(source, target)

    def _folder(self, parts: tuple[str, ...]) -> Path:
        """The directory that these names lead to, made where missing; symlinks are followed inside the root only."""
        there = resolve(self._root, "/".join(parts))
        at = self._root
        for part in there.relative_to(self._root).parts:
            at = at / part
            if not at.exists():
                at.mkdir(mode=0o755)
                self._modes.setdefault(at, 0o755)
                if self._owner is not None:
                    os.chown(at, *self._owner)
            elif not at.is_dir():
                raise EngineFailure(CODE, f"{'/'.join(parts)} leads through {part}, which is not a directory")
        return at

    def _remove(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)


def _parts(name: str) -> tuple[str, ...]:
    """The names in a member's path. Raises EngineFailure for one that is absolute or climbs."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise EngineFailure(CODE, f"a layer holds the path {name!r}, which leaves the image")
    return tuple(part for part in path.parts if part != ".")
