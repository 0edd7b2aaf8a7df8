"""One watch: the lines of an answer that does not end, decoded as they come."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from shoal_k8s.api.failures import KubeApiError
from shoal_k8s.api.objects import ApiStatus, KubeStruct, Meta

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")
CHUNK = 64 * 1024


class WatchEvent(Struct, Generic[T]):
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK; a bookmark has no object, only a version."""

    type: str
    object: T | None
    version: str


class _Line(Struct):
    type: str
    object: Raw


class _Versioned(KubeStruct):
    metadata: Meta


def events(answer: urllib3.BaseHTTPResponse, decoder: msgspec.json.Decoder[T], request: str) -> Iterator[WatchEvent[T]]:
    """The events of a watch until the server ends it.

    Raises KubeApiError for an ERROR event (410 when the version is gone), urllib3's HTTPError when the stream breaks,
    and msgspec's DecodeError for what is not a watch.
    """
    for line in _lines(answer):
        event = _line.decode(line)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=ApiStatus)
            raise KubeApiError(status.code or 500, status, request)
        version = _versioned.decode(event.object).metadata.resource_version
        yield WatchEvent(event.type, None if event.type == "BOOKMARK" else decoder.decode(event.object), version)


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """Whole lines, as soon as they are there."""
    rest = b""
    for chunk in answer.stream(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)


_line = msgspec.json.Decoder(_Line)
_versioned = msgspec.json.Decoder(_Versioned)
