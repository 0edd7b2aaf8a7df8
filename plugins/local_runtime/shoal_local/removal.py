"""Removing directory trees whose owner did not want them removed."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and all below it, directories with mode 000 included; absent is fine. Raises OSError."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError:
        _open_up(folder)
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    """Give the owner every right on all directories; symlinks are not followed."""
    with suppress(OSError):
        folder.chmod(0o700)
    for at, names, _ in os.walk(folder):
        for name in names:
            path = Path(at, name)
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
