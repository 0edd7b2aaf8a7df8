"""The access line: one a request, so its cost counts. It passes by the general pipeline and is encoded at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec import Struct

from shoal.logs.render import console_head, console_pairs, json_line
from shoal.logs.text import MAX_ID_LENGTH, bounded, escaped

if TYPE_CHECKING:
    from shoal.logs.writer import SinkQueue
    from shoal.web.seam import AccessEntry

ACCESS_LOGGER = "shoal.access"
AccessLog = Callable[["AccessEntry"], None]


class AccessLine(Struct, omit_defaults=True, gc=False):
    """The JSON form. ``duration_ms`` in milliseconds; ``complete`` only where the answer was cut off.

    ``close_code`` only of a WebSocket.
    """

    timestamp: datetime
    level: str
    logger: str
    event: str
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    principal: str | None = None
    route: str | None = None
    sandbox_id: str | None = None
    client: str | None = None
    complete: bool = True
    close_code: int | None = None


def json_access(channel: SinkQueue) -> AccessLog:
    """An access log of JSON lines."""
    put, now = channel.put, datetime.now

    def log(entry: AccessEntry) -> None:
        line = AccessLine(
            now(UTC),
            "info",
            ACCESS_LOGGER,
            "request",
            bounded(entry.request_id, MAX_ID_LENGTH),
            bounded(entry.method),
            bounded(entry.path),
            entry.status,
            round(entry.duration * 1000, 3),
            entry.principal,
            entry.route,
            entry.sandbox_id and bounded(entry.sandbox_id),
            entry.client,
            entry.complete,
            entry.close_code,
        )
        put(json_line(line))

    return log


def console_access(channel: SinkQueue, *, colours: bool) -> AccessLog:
    """An access log for people."""

    def log(entry: AccessEntry) -> None:
        head = console_head(datetime.now(UTC), "info", ACCESS_LOGGER, colours=colours)
        what = f"{escaped(bounded(entry.method))} {escaped(bounded(entry.path))}"
        cut = "" if entry.complete else " (cut off)"
        pairs = {
            "request_id": bounded(entry.request_id, MAX_ID_LENGTH),
            "principal": entry.principal,
            "sandbox_id": entry.sandbox_id and bounded(entry.sandbox_id),
            "route": entry.route,
            "client": entry.client,
            "close_code": entry.close_code,
        }
        shown = console_pairs([pair for pair in pairs.items() if pair[1] is not None], colours=colours)
        line = f"{head}{what} {entry.status} {entry.duration * 1000:.1f} ms{cut}{shown}\n"
        channel.put(line.encode(errors="backslashreplace"))

    return log


def no_access(entry: AccessEntry) -> None:
    """The access log when there is none."""
