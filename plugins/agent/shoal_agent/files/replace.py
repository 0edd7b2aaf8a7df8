"""Replacing a text in a file, in flat memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from shoal_agent.files.failures import reported
from shoal_agent.files.permissions import Change
from shoal_agent.files.staging import Staged
from shoal_agent.http.errors import INVALID_FILE, INVALID_REQUEST_BODY, ApiError

BLOCK = 1024 * 1024


class Replacement(NamedTuple):
    """What to look for and what to write instead."""

    old: bytes
    new: bytes


def parse(old: str, new: str) -> Replacement:
    """Raises `ApiError` 400 for an empty `old`, and for text that is no Unicode."""
    if not old:
        raise ApiError(400, INVALID_REQUEST_BODY, "old must not be empty")
    try:
        return Replacement(old.encode(), new.encode())
    except UnicodeEncodeError:
        raise ApiError(400, INVALID_REQUEST_BODY, "old and new must be valid Unicode") from None


def replace_all(replacements: dict[str, Replacement]) -> dict[str, int]:
    """The number of occurrences per path; a file without any stays as it is.

    Raises `ApiError`; nothing is replaced if one of the files is missing.
    """
    for path in replacements:
        with reported(path):
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise ApiError(400, INVALID_FILE, f"{path} is no regular file")
    counts = {}
    for path, replacement in replacements.items():
        with reported(path):
            counts[path] = _replace(path, replacement)
    return counts


def _replace(path: str, replacement: Replacement) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not any(count for _, count in pieces(_blocks(descriptor), replacement)):
            return 0
        os.lseek(descriptor, 0, os.SEEK_SET)
        return _rewrite(path, descriptor, replacement)
    finally:
        os.close(descriptor)


def _rewrite(path: str, descriptor: int, replacement: Replacement) -> int:
    staged, total = Staged(path), 0
    try:
        for piece, count in pieces(_blocks(descriptor), replacement):
            staged.write(piece)
            total += count
        staged.commit(Change())
    finally:
        staged.discard()
    return total


def _blocks(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, BLOCK):
        yield block


def pieces(blocks: Iterator[bytes], replacement: Replacement) -> Iterator[tuple[bytes, int]]:
    """The new content piece by piece, each with the number of occurrences in it, from left to right without overlap."""
    old, new = replacement
    rest = b""
    for block in blocks:
        text = rest + block
        parts = text.split(old)
        tail = parts[-1]
        kept = min(len(old) - 1, len(tail))  # an occurrence may begin here and end in the next block
        rest = tail[len(tail) - kept :] if kept else b""
        parts[-1] = tail[: len(tail) - kept]
        yield new.join(parts), len(parts) - 1
    yield rest, 0
