"""Paths below a directory that somebody else may be changing.

A path is resolved first and walked afterwards, through no symbolic link. What counts from then on is the descriptor at
the end of the walk, never again the name. The functions block.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from shoal.kit.walk import descend, open_path

_IN_THE_WAY: Final = frozenset({errno.ELOOP, errno.ENOTDIR})


class Unsafe(Exception):
    """The path is not what it was when it was resolved, or lies elsewhere by now."""


def is_within(path: str, prefixes: Iterable[str]) -> bool:
    """Whether the path is one of the prefixes or lies below one; texts only."""
    return any(path == prefix or path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)


def joined(path: str, sub_path: str | None) -> str:
    """The path of ``sub_path``, normalised, below ``path``; the caller has refused ``..`` and leading slashes."""
    return path if not sub_path else os.path.normpath(f"{path}/{sub_path}")


def resolved(path: str) -> str:
    """The path without symbolic links; what does not exist counts as ordinary directories."""
    return os.path.realpath(path)


def opened(path: str) -> int:
    """A descriptor (``O_PATH``) of a resolved, absolute path; its missing directories are made.

    The caller closes it. Raises Unsafe where a link or a file stands in the way, OSError where one cannot be made.
    """
    try:
        return open_path(Path(path), make=True)
    except OSError as error:
        raise _meant(error) from None


def opened_below(top: int, sub_path: str | None, *, like_top: bool = False) -> int:
    """The same for a path below a directory's descriptor, out of which no link of it leads.

    ``like_top``: directories that are made get the owner and the mode of ``top``. Raises also Unsafe if it leads out.
    """
    if not sub_path:
        return os.dup(top)
    root = real(top)
    target = resolved(joined(root, sub_path))
    if not is_within(target, [root]):
        raise Unsafe("it leads out of its volume")
    model = os.fstat(top) if like_top else None
    owner = (model.st_uid, model.st_gid) if model is not None else None
    mode = stat.S_IMODE(model.st_mode) if model is not None else None
    try:
        return descend(top, Path(target).relative_to(root).parts, make=True, owner=owner, mode=mode)
    except OSError as error:
        raise _meant(error) from None


def real(handle: int) -> str:
    """Where an open file lies now."""
    return str(Path(f"/proc/self/fd/{handle}").readlink())


def _meant(error: OSError) -> Exception:
    return Unsafe("a symbolic link or a file stands in its way") if error.errno in _IN_THE_WAY else error
