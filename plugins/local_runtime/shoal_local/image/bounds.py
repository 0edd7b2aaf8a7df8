"""How much work one image may make: bytes, entries and time; and files that are really files."""

from __future__ import annotations

import os
import stat
import tarfile
import time
from pathlib import Path
from typing import IO, Any, Final, cast

from msgspec import Struct

from shoal.errors import EngineFailure
from shoal_local.config import LocalSettings

CODE: Final = "LOCAL::IMAGE_INVALID"
_HEADER_LIMIT: Final = 1024 * 1024
_HEADERS: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class Bounds(Struct, frozen=True):
    """The administrator's limits for each image; see `LocalSettings`."""

    size: int = 32 * 1024**3
    entries: int = 2_000_000
    seconds: float = 1800.0

    @classmethod
    def of(cls, local: LocalSettings) -> Bounds:
        """Those of the configuration."""
        return cls(local.image_max_bytes, local.image_max_entries, float(local.image_unpack_seconds))


class Budget:
    """What is left of the bounds while one image is read. Every call raises EngineFailure once it is used up."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._size = bounds.size
        self._entries = bounds.entries
        self._deadline = time.monotonic() + bounds.seconds

    def spend(self, size: int) -> None:
        """``size`` bytes of an unpacked layer were read."""
        self._size -= size
        if self._size < 0:
            raise EngineFailure(CODE, f"the image is larger than local.image_max_bytes ({self._bounds.size})")
        self.check_time()

    def entry(self) -> None:
        """An entry of an archive was met."""
        self._entries -= 1
        if self._entries < 0:
            raise EngineFailure(CODE, f"the image has more than local.image_max_entries ({self._bounds.entries})")

    def check_time(self) -> None:
        """Work goes on."""
        if time.monotonic() > self._deadline:
            limit = f"local.image_unpack_seconds ({self._bounds.seconds:g})"
            raise EngineFailure(CODE, f"reading the image took longer than {limit}")


class Metered:
    """A readable stream that counts what is read of it, or only the time where ``sized`` is False."""

    def __init__(self, stream: IO[bytes], budget: Budget, *, sized: bool = True) -> None:
        self._stream = stream
        self._budget = budget
        self._sized = sized

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._budget.spend(len(data) if self._sized else 0)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()


class Member(tarfile.TarInfo):
    """A member whose headers cannot be used to fill the memory: tarfile reads those whole."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > _HEADER_LIMIT:
            raise tarfile.ReadError("a header is too large")
        return cast("Any", super())._proc_member(archive)


def open_regular(path: Path) -> IO[bytes]:
    """A regular file, open for reading; a pipe or a device is neither waited for nor read. Raises EngineFailure."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise EngineFailure(CODE, f"{path.name} of the image cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise EngineFailure(CODE, f"{path.name} of the image is not a regular file")
    return os.fdopen(handle, "rb")
