"""Events of a stream as bytes: `docs/wire/execd.md` section 3. One line of ASCII each, then an empty one."""

from __future__ import annotations

import time
from json.encoder import encode_basestring_ascii
from typing import Any

from shoal_agent.http.response import Fields, dump

HEADERS: Fields = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache"),
    ("X-Accel-Buffering", "no"),
]
MAX_EVENT_BYTES = 1_000_000
"""Characters of a text after escaping; a longer one goes as several events."""


def stream_headers() -> Fields:
    """The head of every stream of events."""
    return [*HEADERS]


def event(kind: str, **fields: Any) -> bytes:
    """An event of now; fields that are empty, zero or None are left out."""
    kept = {name: value for name, value in fields.items() if value or value == []}
    return dump({"type": kind, "timestamp": now(), **kept}) + b"\n\n"


def now() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


def output(kind: str, texts: list[str]) -> bytes:
    """An event per text, all of now. `kind` is stdout or stderr."""
    head = f'{{"type":"{kind}","timestamp":{now()},"text":'
    return "".join([_text(head, text) for text in texts]).encode("ascii")


def _text(head: str, text: str) -> str:
    escaped = encode_basestring_ascii(text)
    if len(escaped) <= MAX_EVENT_BYTES:
        return f"{head}{escaped}}}\n\n"
    half = len(text) // 2
    return _text(head, text[:half]) + _text(head, text[half:])


def init(identifier: str) -> bytes:
    """The first event; its text is what status and interrupt take."""
    return event("init", text=identifier)


def ping() -> bytes:
    """A sign of life."""
    return event("ping", text="pong")


def complete(seconds: float) -> bytes:
    """The end of a run that went well."""
    return event("execution_complete", execution_time=int(seconds * 1000))


def error(name: str, value: str, traceback: list[str]) -> bytes:
    """The end of a run that did not."""
    return event("error", error={"ename": name, "evalue": value, "traceback": traceback})
