"""Bodies and queries into typed values, or a ValidationFailed that names every problem (docs/wire/api.md section 1).

A body that fits exactly takes the fast path, msgspec alone. Any other goes through a reader (`shoal.http.reader`),
which accepts what the wire's leniencies allow and explains the rest. Nothing that was sent is ever repeated in a
message.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from shoal.errors import FieldProblem, PayloadTooLarge, ValidationFailed
from shoal.http import coerce
from shoal.http.coerce import Mismatch
from shoal.http.reader import Enough, Problems, at_least, at_most, has_times, problem, reader_of, snake_names
from shoal.models import codes
from shoal.models.secret import decode_hook

if TYPE_CHECKING:
    from falcon.asgi import Request

T = TypeVar("T")
S = TypeVar("S", int, float, bool)

_JSON_TYPE = re.compile(r"application/([^;\s/]+\+)?json\s*(;.*)?", re.IGNORECASE | re.DOTALL)
_BYTE = re.compile(r"byte (\d+)")
LARGE_BODY = 64 * 1024
"""Bytes from which on a body is understood on a thread: the time it takes is not the other callers'."""
MAX_VALUES = 100_000
"""In one body, counted by its commas before it is decoded, which no thread can do beside the event loop."""
_BODY: tuple[str] = ("body",)


class BodyDecoder(Generic[T]):
    """The decoder of one body type, built once.

    Args:
        kind: a Struct, or a dict type.
        optional: an absent body and ``null`` are accepted, and become None.
    """

    def __init__(self, kind: type[T] | Any, *, optional: bool = False) -> None:
        self._optional = optional
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(kind, dec_hook=decode_hook)
        self._reader = reader_of(kind)
        # Spellings that msgspec would skip as unknown; an escaped character may hide one.
        names = "|".join(sorted(snake_names(kind)))
        self._needs_reader = re.compile(rf'"({names})"|\\u00' if names else r"(?!)") if not has_times(kind) else None

    async def read(self, req: Request, limit: int) -> T | None:
        """The request's body. Raises ValidationFailed, and PayloadTooLarge above ``limit`` bytes."""
        return await self.understood(req, await read_body(req, limit))

    async def understood(self, req: Request, raw: bytes) -> T | None:
        """The value of a body that was read already, on a thread if it is large. Raises ValidationFailed."""
        if len(raw) < LARGE_BODY:
            return self.accept(req, raw)
        if raw.count(b",") > MAX_VALUES:
            raise ValidationFailed([problem(_BODY, "too_long", f"expected at most {MAX_VALUES} values")])
        return await asyncio.to_thread(self.accept, req, raw)

    def accept(self, req: Request, raw: bytes) -> T | None:
        """The same, at once."""
        if not raw:
            if self._optional:
                return None
            raise ValidationFailed([problem(_BODY, "missing", "a JSON body is required")])
        if _JSON_TYPE.fullmatch((req.content_type or "").strip()) is None:
            message = "expected JSON, with Content-Type application/json or application/*+json"
            raise ValidationFailed([problem(_BODY, "content_type", message)])
        return self.parse(raw)

    async def require(self, req: Request, limit: int) -> T:
        """The same for a body that is not optional."""
        value = await self.read(req, limit)
        assert value is not None  # noqa: S101 - `read` raises before it returns None for a required body
        return value

    def parse(self, raw: bytes) -> T | None:
        """The value of a JSON text. Raises ValidationFailed."""
        if self._needs_reader is not None and self._needs_reader.search(raw.decode("latin-1")) is None:
            try:
                return self._decoder.decode(raw)
            except (msgspec.DecodeError, ValueError, RecursionError):
                pass
        value = _json(raw)
        if value is None and self._optional:
            return None
        problems = Problems()
        try:
            result: T = self._reader(value, _BODY, problems)
        except Enough:
            raise ValidationFailed(problems) from None
        if problems:
            raise ValidationFailed(problems)
        return result


class Query:
    """Query parameters, read one by one; `check` raises for all that were wrong. The last of a repeated one counts."""

    def __init__(self, req: Request) -> None:
        self._params: Mapping[str, str | list[str]] = req.params
        self._problems: list[FieldProblem] = []

    def text(self, name: str) -> str | None:
        """A parameter as it came, None if absent."""
        value = self._params.get(name)
        return value[-1] if isinstance(value, list) else value

    def texts(self, name: str) -> list[str]:
        """Every value of a repeatable parameter."""
        value = self._params.get(name, [])
        return value if isinstance(value, list) else [value]

    def integer(self, name: str, default: int, *, ge: int | None = None, le: int | None = None) -> int:
        """An integer within bounds."""
        found = self._scalar(name, coerce.integer, ge, le)
        return default if found is None else found

    def optional_integer(self, name: str) -> int | None:
        """An integer, None if absent."""
        return self._scalar(name, coerce.integer)

    def number(self, name: str, default: float, *, ge: float | None = None) -> float:
        """A finite number within bounds."""
        found = self._scalar(name, coerce.number, ge)
        return default if found is None else found

    def boolean(self, name: str, *, default: bool) -> bool:
        """A boolean."""
        found = self._scalar(name, coerce.boolean)
        return default if found is None else found

    def refuse(self, name: str, kind: str, expected: str) -> None:
        """Note a problem that only the caller can see."""
        self._problems.append(problem(("query", name), kind, expected))

    def check(self) -> None:
        """Raise ValidationFailed if anything read so far was wrong."""
        if self._problems:
            raise ValidationFailed(self._problems)

    def _scalar(
        self, name: str, convert: Callable[[Any], S], ge: float | None = None, le: float | None = None
    ) -> S | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            value = convert(text)
            at_least(value, ge)
            at_most(value, le)
        except Mismatch as mismatch:
            self._problems.append(problem(("query", name), mismatch.kind, mismatch.expected, mismatch.ctx))
            return None
        return value


def port_of(text: str) -> int:
    """A port in the path; its range is the engine's to judge. Raises ValidationFailed unless it is an integer."""
    try:
        return coerce.integer(text)
    except Mismatch as mismatch:
        raise ValidationFailed([problem(("path", "port"), mismatch.kind, mismatch.expected)]) from None


async def read_body(req: Request, limit: int) -> bytes:
    """The whole body, bounded before it is kept. Raises PayloadTooLarge above ``limit`` bytes."""
    if (req.content_length or 0) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in req.stream:
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> PayloadTooLarge:
    # The rest of the body is not read, so the connection cannot carry another request.
    headers = {"Connection": "close"}
    return PayloadTooLarge(codes.BODY_TOO_LARGE, f"The body exceeds {limit} bytes.", headers=headers)


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise ValidationFailed([problem(_BODY, "json_invalid", "the JSON is nested too deeply")]) from None
    except (msgspec.DecodeError, ValueError) as error:
        found = _BYTE.search(str(error))
        loc = (*_BODY, int(found[1])) if found else _BODY
        raise ValidationFailed([problem(loc, "json_invalid", "expected valid JSON")]) from None
