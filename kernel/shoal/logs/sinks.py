"""Where log lines end up: a standard stream, or a file that is rotated by size. Used by the writer's thread alone.

A sink never raises: a log that cannot be written must not end the server, and there is nowhere left to report it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TextIO

from shoal.errors import ConfigError


class Sink(ABC):
    """Takes finished lines, each with its newline."""

    @abstractmethod
    def write(self, lines: list[bytes]) -> None:
        """Write them in order; may block."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the sink opened itself; may be called twice."""


class DescriptorSink(Sink):
    """An open file descriptor that belongs to someone else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, lines: list[bytes]) -> None:
        rest = memoryview(b"".join(lines))
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                self._wait()
            except OSError:  # the reader is gone, or the disk is full
                return

    def close(self) -> None:
        """Nothing: the descriptor is not ours."""

    def _wait(self) -> None:
        """Whoever else holds the descriptor made it non-blocking: wait until it takes more."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()


class TextSink(Sink):
    """A text stream without a descriptor, as test runners put in place of stdout."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, lines: list[bytes]) -> None:
        try:
            self._stream.write(b"".join(lines).decode())
            self._stream.flush()
        except (OSError, ValueError):  # closed
            return

    def close(self) -> None:
        """Nothing: the stream is not ours."""


class FileSink(Sink):
    """A file with numbered predecessors, ``server.log.1`` the youngest.

    It is also opened anew when someone else has moved or removed it, as logrotate does.

    Args:
        max_bytes: size that the file does not exceed, unless a single line does.
        backups: how many predecessors are kept; 0 = the file is never rotated, as in Python's own handler.

    Raises ConfigError if it cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        try:
            with contextlib.suppress(FileExistsError):  # if it is a file, opening says so better
                path.parent.mkdir(parents=True)
            self._open()
        except OSError as error:
            raise ConfigError(f"cannot write the log file {path}: {error.strerror}") from error

    def write(self, lines: list[bytes]) -> None:
        try:
            self._reopen_if_moved()
            for line in lines:
                if self._backups and self._size and self._size + len(line) > self._max_bytes:
                    self._rotate()
                self._file.write(line)
                self._size += len(line)
            self._file.flush()
        except (OSError, ValueError):  # the disk is full, the folder is gone
            return

    def close(self) -> None:
        try:
            self._file.close()
        except OSError:
            return

    def _open(self) -> None:
        self._file: io.BufferedWriter = self._path.open("ab")
        opened = os.fstat(self._file.fileno())
        self._size = opened.st_size
        self._identity = (opened.st_dev, opened.st_ino)

    def _reopen_if_moved(self) -> None:
        try:
            seen = self._path.stat()
            moved = (seen.st_dev, seen.st_ino) != self._identity
        except FileNotFoundError:
            moved = True
        if moved or self._file.closed:
            self._file.close()
            self._open()

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._backups - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class NoSink(Sink):
    """For a process that was started without the stream."""

    def write(self, lines: list[bytes]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def stream_sink(stream: TextIO | None) -> Sink:
    """The fastest sink for a standard stream."""
    if stream is None:
        return NoSink()
    try:
        return DescriptorSink(stream.fileno())
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is an OSError
        return TextSink(stream)
