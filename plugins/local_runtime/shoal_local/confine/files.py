"""The filter and the entry program as files, for the tools that start sandboxes."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal_local.confine import entry, program

MACHINES: Final = frozenset(program.ARCHITECTURES)


class Confinement(Struct, frozen=True):
    """``filter`` is for bubblewrap and the agent, ``entry`` for a command that is to be executed with the filter on."""

    filter: Path
    entry: Path


def prepare(folder: Path, *, nested: bool) -> Confinement | None:
    """Write both, if they are not there; None on an architecture that there is no filter for. Raises OSError."""
    machine = platform.machine()
    if machine not in MACHINES:
        return None
    code = program.build(machine, nested=nested)
    run = entry.build(machine, code)
    return Confinement(_written(folder, code, "bpf", 0o644), _written(folder, run, "elf", 0o755))


def _written(folder: Path, content: bytes, kind: str, mode: int) -> Path:
    """A file named after its content; running sandboxes of an earlier version may use another."""
    path = folder / f"{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(content)
        draft.chmod(mode)
        draft.rename(path)
    return path
