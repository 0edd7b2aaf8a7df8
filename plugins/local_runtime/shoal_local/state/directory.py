"""The runtime's own directory: where sandboxes, unpacked images and what is being removed live."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from shoal.config.settings import Settings
from shoal.errors import ConfigError
from shoal_local.config import LocalSettings
from shoal_local.root.mounts import layer_name_problem, make_device_template
from shoal_local.state.box import Box


class StateDirectory:
    """One directory that only the server may enter.

    It holds ``sandboxes/<id>``, ``images/<digest>``, ``snapshots/<id>``, ``roots/`` and ``dev/`` (templates),
    ``confine/`` (filters of system calls), ``spares/`` (networks made in advance) and ``trash/``.

    Attributes:
        name: unique to this directory; names the control groups and the mount point.
        mountpoint: an empty directory that the sandboxes' user can reach, on which each builds its root.
    """

    def __init__(self, settings: Settings, local: LocalSettings) -> None:
        given = Path(local.state_dir).expanduser() if local.state_dir else settings.store.file.parent / "local"
        self.path = given.absolute()
        self.name = f"shoal-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}"
        self.sandboxes = self.path / "sandboxes"
        self.images = self.path / "images"
        self.snapshots = self.path / "snapshots"
        self.trash = self.path / "trash"
        self.spares = self.path / "spares"
        self.dev = self.path / "dev"
        self.templates = self.path / "roots"
        self.confine = self.path / "confine"
        # Root's sandboxes have another user, who cannot get through a private state directory.
        self.mountpoint = Path("/run", self.name) if os.geteuid() == 0 else self.path / "mnt"

    def open(self) -> None:
        """Make what is missing. Raises ConfigError if that is impossible or the path cannot hold overlays."""
        problem = layer_name_problem(self.path)
        if problem is not None:
            raise ConfigError(f"local.state_dir: {problem}")
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.chmod(0o700)
            for folder in (
                self.sandboxes,
                self.images,
                self.snapshots,
                self.trash,
                self.spares,
                self.templates,
                self.confine,
            ):
                folder.mkdir(exist_ok=True, mode=0o700)
            self.mountpoint.mkdir(exist_ok=True, mode=0o755)
            self.mountpoint.chmod(0o755)
            make_device_template(self.dev)
        except OSError as error:
            raise ConfigError(f"local.state_dir: {self.path} cannot be used: {error.strerror}") from None

    def let_pass(self) -> None:
        """Let other users through to the sandboxes' homes, which have no mounts to lead there. Raises ConfigError."""
        for folder in (self.path, self.sandboxes):
            folder.chmod(0o711)
        shut = next((folder for folder in self.path.parents if not folder.stat().st_mode & 0o001), None)
        if shut is not None:
            raise ConfigError(
                f'local.state_dir: with isolation = "none" the sandboxes\' user must get through to {self.path}, '
                f"which {shut} does not allow; name another directory"
            )

    def close(self) -> None:
        """Remove the mount point; only while no sandbox has anything mounted on it, or it would lose that."""
        with suppress(OSError):
            self.mountpoint.rmdir()

    def box(self, sandbox_id: str) -> Box:
        return Box(self.sandboxes / sandbox_id)

    def boxes(self) -> list[Box]:
        """Every sandbox directory, complete or not."""
        with os.scandir(self.sandboxes) as entries:
            return [Box(Path(entry.path)) for entry in entries if entry.is_dir(follow_symlinks=False)]
