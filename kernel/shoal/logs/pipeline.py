"""From a call of a logger to a line in the application's channel: for structlog and for the standard library alike."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from shoal.logs.render import Renderer
from shoal.logs.text import tame

OWN_KEYS = frozenset({"timestamp", "level", "logger", "event"})

Put = Callable[[bytes], None]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ChannelLogger:
    """What structlog calls with the finished line, whatever the level.

    Attributes:
        name: of the logger, as given to ``structlog.get_logger``.
    """

    def __init__(self, name: str, put: Put) -> None:
        self.name = name
        self.msg = put

    def __getattr__(self, method: str) -> Put:
        return self.msg


class LoggerFactory:
    """Makes a `ChannelLogger` for ``structlog.get_logger(name)``."""

    def __init__(self, put: Put) -> None:
        self._put = put

    def __call__(self, name: str = "shoal", *_: Any) -> ChannelLogger:
        return ChannelLogger(name, self._put)


class StandardHandler(logging.Handler):
    """Takes the lines of libraries that log by `logging`; never blocks, and never raises."""

    def __init__(self, put: Put, render: Renderer) -> None:
        super().__init__()
        self._put = put
        self._render = render

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as error:  # the library's arguments do not fit its format
            text = f"{record.msg!r} that cannot be formatted: {type(error).__name__}"
        added: EventDict = {"exc_info": record.exc_info} if record.exc_info else {}
        if record.stack_info:
            added["stack"] = record.stack_info
        level = record.levelname.lower()
        self._put(self._render(finished(record.name, level, text, added)))


def processors(render: Renderer) -> list[Processor]:
    """The structlog chain; its last link makes bytes."""

    def last(logger: WrappedLogger, method: str, event: EventDict) -> bytes:
        level = {"exception": "error", "warn": "warning", "fatal": "critical"}.get(method, method)
        text = event.pop("event", "")
        return render(finished(getattr(logger, "name", "shoal"), level, str(text), event))

    return [last]


def finished(logger: str, level: str, text: str, added: EventDict) -> EventDict:
    """The whole event in its order: who and when, what, the context (request id, sandbox id), then what was added."""
    exc_info = added.pop("exc_info", None)
    stack = added.pop("stack_info", None)
    event: EventDict = {"timestamp": datetime.now(UTC), "level": level, "logger": logger}
    event.update(tame({"event": text, **_renamed(structlog.contextvars.get_contextvars()), **_renamed(added)}))
    if stack:
        event["stack"] = "".join(traceback.format_stack()[:-3])
    caught = _caught(exc_info)
    if caught is not None:
        event["exception"] = tame({"exception": "".join(traceback.format_exception(caught)).rstrip()})["exception"]
    return event


def _renamed(added: Mapping[str, Any]) -> EventDict:
    """The caller's keys; those that a line has of its own with a ``_`` behind, so that they cannot be forged."""
    return {f"{key}_" if key in OWN_KEYS else key: value for key, value in added.items()}


def _caught(exc_info: object) -> BaseException | None:
    """The exception of any of the forms in which one is given to a logger."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None
