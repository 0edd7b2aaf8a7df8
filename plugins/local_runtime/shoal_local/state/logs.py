"""Captured output: one file per sandbox, which the sandbox appends to and the server cuts back at its head.

No process stands in between, so nothing is lost when the server stops. When a file reaches twice what is to be kept,
its oldest part is taken out of the file in place (fallocate(2), FALLOC_FL_COLLAPSE_RANGE, or a hole where the file
system only knows holes), which cannot lose what is being appended meanwhile. Where neither is known, the newest part
is kept by rewriting the file, and lines written in that instant may be lost.

Lines carry no time. `Marks` remembers when a file had reached which length, so that ``since`` is as exact as the
interval at which lengths are looked at; for the time before the server started only the file's last change is known.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from shoal.plugin.interfaces import LogQuery
from shoal_local.state.box import Box

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_COLLAPSE_RANGE: Final = 0x08
_CHUNK: Final = 1 << 16
_READ_LIMIT: Final = 16 * 1024 * 1024
_MARKS: Final = 512

_libc: Final = ctypes.CDLL(None, use_errno=True)
_fallocate: Final = _libc.fallocate
_fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]


class Marks:
    """When one log had reached which length, newest last; ``cut`` is how much was taken off its head since."""

    def __init__(self) -> None:
        self.cut = 0
        self._times: deque[float] = deque(maxlen=_MARKS)
        self._lengths: deque[int] = deque(maxlen=_MARKS)

    def note(self, when: float, length: int) -> int:
        """The file is ``length`` bytes long at ``when`` (Unix time); returns by how much it has grown."""
        total = length + self.cut
        before = self._lengths[-1] if self._lengths else 0
        if self._lengths and before == total:
            self._times[-1] = when  # nothing was written until now
            return 0
        self._times.append(when)
        self._lengths.append(total)
        return total - before

    def offset(self, when: float) -> int:
        """Everything before this offset in the file is older than ``when``; 0 when that is not known."""
        index = bisect_right(self._times, when)
        return max(0, self._lengths[index - 1] - self.cut) if index else 0


class LogKeeper:
    """The logs of all sandboxes: cut in time, read on demand. `tend` and `text` block.

    Args:
        keep: how many bytes of the newest output are kept at the least.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._marks: dict[str, Marks] = {}

    def follow(self, sandbox_id: str) -> None:
        """Begin to look after a sandbox's log."""
        self._marks.setdefault(sandbox_id, Marks())

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is going."""
        self._marks.pop(sandbox_id, None)

    def tend(self, find: Callable[[str], Box]) -> bool:
        """Look at every log once and cut what is too long; True if one grows so fast that it should be soon again."""
        busy = False
        for sandbox_id, marks in list(self._marks.items()):
            with suppress(OSError):
                length = cut(find(sandbox_id).log, self._keep, marks)
                busy |= marks.note(time.time(), length) > self._keep / 4
        return busy

    def text(self, box: Box, query: LogQuery) -> str:
        """The end of a log as the query asks for it."""
        start: int | None = 0
        if query.since is not None:
            start = since(box.log, self._marks.get(box.id, Marks()), query.since)
        return (tail(box.log, query.tail, start) if start is not None else "") or "(no logs)"


def cut(path: Path, keep: int, marks: Marks) -> int:
    """Cut the log back to about ``keep`` bytes if it has twice that; returns its length as seen. Blocks.

    Raises OSError; a file that is gone has length 0.
    """
    try:
        status = path.stat()
        length = status.st_size
        # A punched head still counts in the length, but not in the blocks.
        if min(length, status.st_blocks * 512) < 2 * keep:
            return length
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        excess = (length - keep) // status.st_blksize * status.st_blksize
        if _take(handle, _COLLAPSE_RANGE, excess):
            marks.cut += excess
            return length - excess
        if not _take(handle, _PUNCH_HOLE | _KEEP_SIZE, excess):
            marks.cut += length - _rewrite(handle, length, keep)
        return os.fstat(handle).st_size
    finally:
        os.close(handle)


def tail(path: Path, lines: int, start: int = 0) -> str:
    """The last ``lines`` lines from offset ``start`` on, at most 16 MiB; what is not UTF-8 is replaced. Blocks."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        end = os.fstat(handle).st_size
        start = max(start, _data_start(handle), end - _READ_LIMIT)
        content = _last_lines(handle, start, end, lines)
    finally:
        os.close(handle)
    return content.decode(errors="replace")


def since(path: Path, marks: Marks, when: datetime) -> int | None:
    """From which offset on to read for output not older than ``when``; None if there is certainly nothing."""
    try:
        changed = path.stat().st_mtime
    except FileNotFoundError:
        return None
    moment = when.astimezone(UTC).timestamp()
    return None if changed < moment else marks.offset(moment)


def _last_lines(handle: int, start: int, end: int, lines: int) -> bytes:
    chunks: list[bytes] = []
    newlines, position = 0, end
    while position > start and newlines <= lines:
        size = min(_CHUNK, position - start)
        position -= size
        chunk = os.pread(handle, size, position)
        newlines += chunk.count(b"\n")
        chunks.append(chunk)
    content = b"".join(reversed(chunks))
    return b"".join(content.splitlines(keepends=True)[-lines:]) if lines > 0 else b""


def _take(handle: int, mode: int, length: int) -> bool:
    """Take ``length`` bytes off the head; False if this file system cannot."""
    if _fallocate(handle, mode, 0, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY):
        return False
    raise OSError(number, os.strerror(number))


def _rewrite(handle: int, length: int, keep: int) -> int:
    newest = os.pread(handle, keep, length - keep)
    os.ftruncate(handle, 0)
    os.pwrite(handle, newest, 0)
    return len(newest)


def _data_start(handle: int) -> int:
    """Where the file's first data is, past a hole at its head."""
    try:
        return os.lseek(handle, 0, os.SEEK_DATA)
    except OSError:
        return 0
