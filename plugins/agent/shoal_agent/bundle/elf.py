"""ELF files made fit for a folder that moves: no search paths of the build machine, a loader of their own, no symbols.

Only the program headers and the dynamic section are read and written, which are the same for every 64-bit machine;
nothing is moved, so that no address in the file changes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LOAD: Final = 1
DYNAMIC: Final = 2
INTERPRETER: Final = 3
_END: Final = 0
_STRINGS: Final = 5
_SONAME: Final = 14
_RPATH: Final = 15
_RUNPATH: Final = 29

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_ENTRY: Final = struct.Struct("<QQ")


class NotElf(ValueError):
    """The file is no 64-bit little-endian ELF file, or has no room for what must be written into it."""


@dataclass(frozen=True)
class Segment:
    """One program header, and where in the file it stands."""

    at: int
    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    alignment: int

    def packed(self) -> bytes:
        sizes = (self.file_size, self.memory_size, self.alignment)
        return _SEGMENT.pack(self.kind, self.flags, self.offset, self.address, self.physical, *sizes)


class Elf:
    """The bytes of one file, changed in place.

    Raises NotElf for anything but a 64-bit little-endian ELF file.
    """

    def __init__(self, content: bytes) -> None:
        self._bytes = bytearray(content)
        if content[:6] != b"\x7fELF\x02\x01":
            raise NotElf("not a 64-bit little-endian ELF file")
        self._header = list(_HEADER.unpack_from(content))
        self.segments = self._read_segments()

    @classmethod
    def read(cls, path: Path) -> Elf:
        return cls(path.read_bytes())

    def content(self) -> bytes:
        """The file as it is now."""
        return bytes(self._bytes)

    def loader(self) -> str | None:
        """The loader that the kernel starts the file with; None for a library."""
        segment = next((each for each in self.segments if each.kind == INTERPRETER), None)
        return None if segment is None else self._text(segment.offset)

    def soname(self) -> str | None:
        """The name by which other files ask for this library."""
        entries = dict(self._dynamic())
        if _SONAME not in entries:
            return None
        return self._text(self._offset(entries[_STRINGS] + entries[_SONAME]))

    def strip(self) -> None:
        """Drop what is never mapped: symbol tables, debug sections, the section headers themselves."""
        end = max(segment.offset + segment.file_size for segment in self.segments)
        end = max(end, self._header[5] + self._header[9] * self._header[10])
        del self._bytes[end:]
        self._header[6] = 0  # e_shoff
        self._header[12] = self._header[13] = 0  # e_shnum, e_shstrndx
        _HEADER.pack_into(self._bytes, 0, *self._header)

    def forget_search_paths(self) -> None:
        """Take RPATH and RUNPATH out of the dynamic section."""
        self._write_dynamic([each for each in self._dynamic() if each[0] not in (_RPATH, _RUNPATH)])

    def search_in(self, path: str) -> None:
        """Look for libraries in ``path`` (``$ORIGIN/lib``) before anything that the environment says.

        It is an RPATH, which counts for the libraries of libraries as well. Raises NotElf where there is no room.
        """
        self.forget_search_paths()
        entries = self._dynamic()
        strings = next((value for tag, value in entries if tag == _STRINGS), None)
        if strings is None:
            raise NotElf("a dynamic section without strings")
        self._write_dynamic([*entries, (_RPATH, self._placed(path.encode() + b"\0") - strings)])

    def load_with(self, loader: str) -> None:
        """Let the kernel start the file with that loader, an absolute path."""
        segment = next((each for each in self.segments if each.kind == INTERPRETER), None)
        if segment is None:
            raise NotElf("a program without a loader")
        text = loader.encode() + b"\0"
        if len(text) > segment.file_size:
            raise NotElf(f"no room for the loader's path {loader}")
        self._bytes[segment.offset : segment.offset + segment.file_size] = text.ljust(segment.file_size, b"\0")

    def _read_segments(self) -> list[Segment]:
        start, size, count = self._header[5], self._header[9], self._header[10]
        places = range(start, start + size * count, size)
        return [Segment(at, *_reordered(_SEGMENT.unpack_from(self._bytes, at))) for at in places]

    def _dynamic(self) -> list[tuple[int, int]]:
        """Tags and values up to the end mark."""
        entries = []
        for at in self._places():
            tag, value = _ENTRY.unpack_from(self._bytes, at)
            if tag == _END:
                break
            entries.append((tag, value))
        return entries

    def _write_dynamic(self, entries: list[tuple[int, int]]) -> None:
        places = self._places()
        if len(entries) >= len(places):  # one stays for the end mark
            raise NotElf("the dynamic section is full")
        for at, entry in zip(places, [*entries, *[(_END, 0)] * (len(places) - len(entries))], strict=True):
            _ENTRY.pack_into(self._bytes, at, *entry)

    def _text(self, offset: int) -> str:
        return self._bytes[offset : self._bytes.index(0, offset)].decode()

    def _offset(self, address: int) -> int:
        """Where in the file that address comes from."""
        for segment in self.segments:
            if segment.kind == LOAD and segment.address <= address < segment.address + segment.file_size:
                return segment.offset + address - segment.address
        raise NotElf("an address outside of every segment")

    def _places(self) -> list[int]:
        """Offsets of the dynamic section's entries; none in a static program."""
        segment = next((each for each in self.segments if each.kind == DYNAMIC), None)
        if segment is None:
            return []
        return list(range(segment.offset, segment.offset + segment.file_size, _ENTRY.size))

    def _placed(self, text: bytes) -> int:
        """The address of ``text``, written between the end of a segment and that of its last page."""
        starts = [each.offset for each in self.segments if each.kind == LOAD]
        for segment in self.segments:
            start = segment.offset + segment.file_size
            limit = min([-(-start // _PAGE) * _PAGE, *(offset for offset in starts if offset >= start)])
            whole = segment.kind == LOAD and segment.file_size == segment.memory_size
            if whole and limit - start >= len(text) and not any(self._bytes[start:limit]):
                self._bytes[start : start + len(text)] = text
                self._grow(segment, len(text))
                return segment.address + segment.file_size
        raise NotElf("no room for a search path")

    def _grow(self, segment: Segment, by: int) -> None:
        sizes = (segment.file_size + by, segment.memory_size + by, segment.alignment)
        fields = (segment.kind, segment.flags, segment.offset, segment.address, segment.physical)
        _SEGMENT.pack_into(self._bytes, segment.at, *fields, *sizes)
        self.segments = self._read_segments()


_PAGE: Final = 4096
"""The smallest page of the machines that there are: what lies within it is mapped with its segment."""


def _reordered(fields: tuple[int, ...]) -> tuple[int, int, int, int, int, int, int, int]:
    kind, flags, offset, address, physical, file_size, memory_size, alignment = fields
    return kind, flags, offset, address, physical, file_size, memory_size, alignment
