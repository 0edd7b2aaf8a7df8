"""A client of a MySQL or MariaDB server on loopback: text queries, a user without a password."""

from __future__ import annotations

import asyncio
import struct

HOST, PORT, USER = "127.0.0.1", 3306, "root"
CAPABILITIES = 0x1 | 0x200 | 0x2000 | 0x8000 | 0x80000
"""Long passwords, protocol 4.1, transactions, secure authentication, its plug-ins by name."""
UTF8 = 45
MAX_RESULT_BYTES = 32 * 1024 * 1024
"""Bytes of a result."""
Rows = list[list[str | None]]


class DatabaseError(Exception):
    """The server cannot be reached, or refuses."""


class MysqlConnection:
    """One connection, for one query at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sequence = 0
        self.thread = 0
        """Its id on the server, for ``KILL QUERY``."""

    @classmethod
    async def open(cls) -> MysqlConnection:
        """Raises `DatabaseError`."""
        try:
            async with asyncio.timeout(10):
                connection = cls(*await asyncio.open_connection(HOST, PORT))
                try:
                    await connection._greet()
                except BaseException:
                    connection.close()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, struct.error, ValueError, IndexError) as error:
            reason = "connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or "timeout"
            raise DatabaseError(f"no MySQL server answers at {HOST}:{PORT}: {reason}") from None
        return connection

    def close(self) -> None:
        self._writer.close()

    async def query(self, text: str) -> tuple[list[str], Rows] | int:
        """Columns and rows, or the number of rows that were changed. Raises `DatabaseError`."""
        try:
            self._sequence = 0
            await self._send(b"\x03" + text.encode("utf-8", "replace"))
            return await self._result()
        except (OSError, asyncio.IncompleteReadError) as error:
            raise DatabaseError(f"the MySQL server breaks off: {error}") from None

    async def _result(self) -> tuple[list[str], Rows] | int:
        first = await self._packet()
        if first[0] == 0:
            return _number(first, 1)[0] or 0
        if first[0] == 0xFB:
            await self._send(b"")  # it asks for a local file
            await self._packet()
            raise DatabaseError("LOAD DATA LOCAL is not supported")
        columns = [_column(await self._packet()) for _ in range(_number(first, 0)[0] or 0)]
        await self._packet()
        rows: Rows = []
        size = 0
        while not _is_end(packet := await self._packet()):
            size += len(packet)
            if size > MAX_RESULT_BYTES:
                raise DatabaseError(f"the result exceeds {MAX_RESULT_BYTES} bytes")
            rows.append(_row(packet))
        return columns, rows

    async def _greet(self) -> None:
        hello = await self._packet()
        if hello[0] != 10:
            raise ValueError("an unknown protocol")
        end = hello.index(0, 1)
        self.thread = struct.unpack_from("<I", hello, end + 1)[0]
        plugin = hello[end + 1 + 4 + 8 + 1 + 18 :][13:].rstrip(b"\0") or b"mysql_native_password"
        head = struct.pack("<IIB23x", CAPABILITIES, 1 << 24, UTF8)
        await self._send(head + USER.encode() + b"\0\0" + plugin + b"\0")
        while (answer := await self._packet())[0] != 0:
            if answer[0] == 0xFE or answer[:2] == b"\x01\x04":
                await self._send(b"")  # no password, whatever the plug-in

    async def _send(self, data: bytes) -> None:
        for start in range(0, len(data) + 1, 0xFFFFFF):
            part = data[start : start + 0xFFFFFF]
            self._writer.write(struct.pack("<I", len(part))[:3] + bytes([self._sequence & 255]) + part)
            self._sequence += 1
        await self._writer.drain()

    async def _packet(self) -> bytes:
        """The next packet. Raises `DatabaseError` for one that is an error."""
        parts, size = [], 0xFFFFFF
        while size == 0xFFFFFF:
            head = await self._reader.readexactly(4)
            size = int.from_bytes(head[:3], "little")
            self._sequence = head[3] + 1
            parts.append(await self._reader.readexactly(size))
        packet = b"".join(parts)
        if packet[:1] == b"\xff":
            number = struct.unpack_from("<H", packet, 1)[0]
            text = packet[9:] if packet[3:4] == b"#" else packet[3:]
            raise DatabaseError(f"Error {number}: {text.decode('utf-8', 'replace')}")
        return packet


def _is_end(packet: bytes) -> bool:
    return packet[:1] == b"\xfe" and len(packet) < 9


def _number(data: bytes, start: int) -> tuple[int | None, int]:
    """A length-encoded integer, None for NULL, and where it ends."""
    first = data[start]
    if first < 0xFB:
        return first, start + 1
    if first == 0xFB:
        return None, start + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}[first]
    return int.from_bytes(data[start + 1 : start + 1 + size], "little"), start + 1 + size


def _text(data: bytes, start: int) -> tuple[str | None, int]:
    size, start = _number(data, start)
    if size is None:
        return None, start
    return data[start : start + size].decode("utf-8", "replace"), start + size


def _column(packet: bytes) -> str:
    """The name in a definition of a column, after catalog, schema and two names of the table."""
    name, position = None, 0
    for _ in range(5):
        name, position = _text(packet, position)
    return name or ""


def _row(packet: bytes) -> list[str | None]:
    values, position = [], 0
    while position < len(packet):
        value, position = _text(packet, position)
        values.append(value)
    return values
