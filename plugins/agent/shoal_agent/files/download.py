"""What a download gets: a file, a part of it, or lines of it."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO, NamedTuple

from shoal_agent.files import ranges
from shoal_agent.files.failures import reported
from shoal_agent.files.lines import LineWindow
from shoal_agent.files.threads import Threads
from shoal_agent.http.errors import INVALID_FILE, INVALID_REQUEST_BODY, ApiError
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, FileResponse, Response, Stream
from shoal_agent.http.wire import http_date

BLOCK = 256 * 1024
"""Bytes read at once; a file up to this size is sent in one piece."""
READ_AHEAD_BYTES = 8 * 1024 * 1024
"""Bytes that the kernel is asked to read before they are sent."""
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_OCTETS = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"


class _Lines(NamedTuple):
    first: int
    limit: int | None


def lines(request: Request) -> _Lines | None:
    """The lines that a request asks for; None for the file as it is. Raises `ApiError` 400."""
    offset, limit = request.query("offset"), request.query("limit")
    if not offset and not limit:
        return None
    if request.headers.get("range") is not None:
        raise ApiError(400, INVALID_REQUEST_BODY, "offset and limit cannot be combined with a Range header")
    return _Lines(_positive("offset", offset) or 1, _positive("limit", limit))


def _positive(name: str, value: str | None) -> int | None:
    if not value:
        return None
    return whole_number(name, value, 1)


def whole_number(name: str, value: str, least: int) -> int:
    """The number in a query field. Raises `ApiError` 400."""
    digits = value.removeprefix("+")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and least <= int(digits) < 2**63):
        raise ApiError(400, INVALID_REQUEST_BODY, f"{name} must be a whole number from {least} on, not {value!r}")
    return int(digits)


def opened(path: str) -> BinaryIO:
    """The regular file at `path`, through links. Raises `ApiError`."""
    with reported(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe without a writer must not block
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return os.fdopen(descriptor, "rb", buffering=0)
        os.close(descriptor)
    kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
    raise ApiError(400, INVALID_FILE, f"{path} is {kind}")


async def download(request: Request, path: str, threads: Threads) -> Answer:
    """The answer to a download of `path`. Raises `ApiError`."""
    return await threads.run(_prepare, request, path, threads)


def _prepare(request: Request, path: str, threads: Threads) -> Answer:
    file = opened(path)
    try:
        window = lines(request)
        if window is not None:
            return _lines(file, LineWindow(window.first, window.limit), threads)
        return _content(file, request, os.path.basename(path), threads)
    except BaseException:
        file.close()
        raise


def _content(file: BinaryIO, request: Request, name: str, threads: Threads) -> Answer:
    status = os.fstat(file.fileno())
    headers = [
        ("Content-Disposition", disposition(name)),
        ("Last-Modified", http_date(status.st_mtime)),
        ("Accept-Ranges", "bytes"),
    ]
    refused = ranges.condition(request.headers, status.st_mtime)
    if refused is not None:
        file.close()
        return Response(b"", refused, headers)
    headers.append(("Content-Type", _OCTETS))
    data = None
    if status.st_size <= BLOCK:  # also what has no size of its own, as in /proc
        data = _read(file, BLOCK + 1)
        if len(data) > BLOCK:
            return Stream(_chain(data, lambda: _read(file, BLOCK), file, threads), headers=headers)
    size = status.st_size if data is None else len(data)
    first, count, code = _part(request, size, status.st_mtime)
    if code == 206:
        headers.append(("Content-Range", f"bytes {first}-{first + count - 1}/{size}"))
    if data is not None:
        file.close()
        return Response(data[first : first + count], code, headers)
    os.posix_fadvise(
        file.fileno(), first, min(count, READ_AHEAD_BYTES), os.POSIX_FADV_WILLNEED
    )  # sending must not wait for the disk
    return FileResponse(file, first, count, code, headers)


def _part(request: Request, size: int, modified: float) -> tuple[int, int, int]:
    """First byte, length and status."""
    header = request.headers.get("range")
    if header is None or not ranges.range_still_valid(request.headers.get("if-range"), modified):
        return 0, size, 200
    return *ranges.byte_range(header, size), 206


def _read(file: BinaryIO, count: int) -> bytes:
    """`count` bytes, fewer only at the end of the file."""
    parts = []
    while count > 0 and (data := file.read(count)):
        parts.append(data)
        count -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _lines(file: BinaryIO, window: LineWindow, threads: Threads) -> Answer:
    def following() -> bytes:
        while not window.done and (block := file.read(BLOCK)):
            if found := window.feed(block):
                return found
        return window.finish()

    headers = [("Content-Type", _TEXT)]
    first = following()
    if not first or window.done or os.fstat(file.fileno()).st_size <= BLOCK:
        rest = following() if first and not window.done else b""
        file.close()
        return Response(first + rest, 200, headers)
    return Stream(_chain(first, following, file, threads), headers=headers)


async def _chain(
    first: bytes, following: Callable[[], bytes], file: BinaryIO, threads: Threads
) -> AsyncIterator[bytes]:
    with file:
        block = first
        while block:
            yield block
            block = await threads.run(following)


def disposition(name: str) -> str:
    """A Content-Disposition that saves under `name`, whatever its characters."""
    plain = name.isascii() and name.isprintable()
    if plain:
        return 'attachment; filename="' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    encoded = "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in os.fsencode(name))
    return f"attachment; filename=\"{encoded}\"; filename*=UTF-8''{encoded}"
