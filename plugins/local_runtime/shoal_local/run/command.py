"""Would executing a command succeed in a given root? Asked before a sandbox starts.

What execve(2) would refuse is found by looking at the file, so that a misspelt command fails the create with a clear
reason instead of ending right after it.
"""

from __future__ import annotations

import os
import platform
import struct
from pathlib import Path
from typing import Final

from shoal.errors import EngineFailure
from shoal_local.root.paths import executable, resolve

CODE: Final = "LOCAL::SANDBOX_START_FAILED"
_HEAD: Final = 4096
_PT_INTERP: Final = 3
_MACHINES: Final = {"x86_64": {62, 3}, "aarch64": {183, 40}}
"""ELF e_machine values that a kernel of this architecture runs (elf.h: EM_X86_64, EM_386, EM_AARCH64, EM_ARM)."""


def locate(root: Path, command: str, path: str, cwd: str) -> str:
    """The command's path inside ``root``, searched along ``path`` (PATH) unless it has a slash.

    Raises EngineFailure that says what is wrong: not found, not executable, made for another machine.
    """
    if "/" in command:
        found = command if command.startswith("/") else f"{cwd}/{command}"
        _check(root, found, command)
        return found
    refused: str | None = None
    for folder in path.split(":"):
        candidate = f"{folder or cwd}/{command}"
        there = resolve(root, candidate)
        if executable(there):
            _check(root, candidate, command)
            return candidate
        if there.exists():
            refused = candidate
    if refused is not None:
        raise EngineFailure(CODE, f"cannot start: {refused} is not an executable file")
    raise EngineFailure(CODE, f"cannot start: {command!r} is not found in PATH ({path})")


def _check(root: Path, inside: str, command: str) -> None:
    file = resolve(root, inside)
    if not file.exists():
        raise EngineFailure(CODE, f"cannot start: {command} does not exist")
    if not executable(file):
        raise EngineFailure(CODE, f"cannot start: {command} is not an executable file")
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            head = stream.read(_HEAD)
    except PermissionError:
        return  # executable but not readable: only execve finds out
    if head[:2] == b"#!":
        words = head[2:].split(b"\n", 1)[0].split()
        _need(root, command, os.fsdecode(words[0]) if words else "", "interpreter")
    elif head[:4] == b"\x7fELF":
        _check_elf(root, command, head)


def _check_elf(root: Path, command: str, head: bytes) -> None:
    wide, little = head[4:5] == b"\x02", head[5:6] == b"\x01"
    end = "<" if little else ">"
    machine = struct.unpack_from(f"{end}H", head, 18)[0]
    known = _MACHINES.get(platform.machine())
    if known is not None and machine not in known:
        raise EngineFailure(CODE, f"cannot start: {command} is a program for another processor")
    if wide:
        offset, size, count = *struct.unpack_from(f"{end}Q", head, 32), *struct.unpack_from(f"{end}HH", head, 54)
    else:
        offset, size, count = *struct.unpack_from(f"{end}I", head, 28), *struct.unpack_from(f"{end}HH", head, 42)
    for index in range(count):
        entry = offset + index * size
        if entry + size > len(head) or struct.unpack_from(f"{end}I", head, entry)[0] != _PT_INTERP:
            continue
        form, at, length = (f"{end}Q", 8, 32) if wide else (f"{end}I", 4, 16)
        start = struct.unpack_from(form, head, entry + at)[0]
        stop = start + struct.unpack_from(form, head, entry + length)[0]
        _need(root, command, os.fsdecode(head[start:stop].rstrip(b"\0")), "dynamic loader")


def _need(root: Path, command: str, inside: str, what: str) -> None:
    if not inside.startswith("/"):
        return
    if not executable(resolve(root, inside)):
        raise EngineFailure(CODE, f"cannot start: {command} needs the {what} {inside}, which does not exist")
