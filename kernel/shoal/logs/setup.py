"""Sets the pipeline up and takes it down. Logging is the process's: the last `configure` holds."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import structlog
from msgspec import Struct

from shoal.config.settings import LogSettings
from shoal.logs.access import AccessLog, console_access, json_access, no_access
from shoal.logs.pipeline import LoggerFactory, StandardHandler, processors
from shoal.logs.render import Renderer, console_line, json_line
from shoal.logs.sinks import FileSink, Sink, stream_sink
from shoal.logs.writer import CLOSE_SECONDS, LogWriter, SinkQueue

if TYPE_CHECKING:
    from shoal.web.seam import AccessEntry

DEFAULT_FILE = "~/logs/opensandbox/server.log"
DEFAULT_ACCESS_FILE = "~/logs/opensandbox/access.log"


class _Running(Struct):
    """What `configure` started, and what `shutdown` restores."""

    writer: LogWriter
    handler: StandardHandler
    access: AccessLog
    root_level: int


_running: _Running | None = None


def configure(settings: LogSettings, *, stdout: TextIO | None = None, stderr: TextIO | None = None) -> None:
    """Send application lines to ``stderr`` and access lines to ``stdout``, or both to the files of ``[log]``.

    Lines of the standard library's loggers and warnings are taken over. Replaces an earlier configuration.

    Args:
        stdout, stderr: other streams than the process's own.

    Raises ConfigError if a log file cannot be opened.
    """
    global _running
    shutdown()
    streams = (stderr or sys.stderr, stdout or sys.stdout)
    sinks = _files(settings) if settings.file_enabled else tuple(map(stream_sink, streams))
    form, access_form = (_Form.of(settings, stream) for stream in streams)
    main = SinkQueue(sinks[0], functools.partial(_dropped, form.render))
    access = SinkQueue(sinks[1], functools.partial(_dropped, access_form.render))
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    handler = StandardHandler(main.put, form.render)
    root = logging.getLogger()
    _running = _Running(
        writer=LogWriter([main, access]),
        handler=handler,
        access=access_form.access(access) if settings.access and level <= logging.INFO else no_access,
        root_level=root.level,
    )
    structlog.configure(
        processors=processors(form.render),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=LoggerFactory(main.put),
        cache_logger_on_first_use=False,
    )
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    atexit.register(shutdown)


def shutdown(seconds: float = CLOSE_SECONDS) -> None:
    """Write what waits, for at most so long, and give logging back. Nothing to do without `configure`."""
    global _running
    running, _running = _running, None
    if running is None:
        return
    atexit.unregister(shutdown)
    logging.captureWarnings(False)
    root = logging.getLogger()
    root.removeHandler(running.handler)
    root.setLevel(running.root_level)
    structlog.reset_defaults()
    running.writer.close(seconds)


def log_access(entry: AccessEntry) -> None:
    """Write one request's access line, if ``[log]`` asks for them. Never blocks."""
    if _running is not None:
        _running.access(entry)


class _Form(Struct, frozen=True):
    """How lines look."""

    json: bool
    colours: bool

    @classmethod
    def of(cls, settings: LogSettings, stream: TextIO | None) -> _Form:
        terminal = stream is not None and not settings.file_enabled and stream.isatty()
        json = settings.format == "json" or (settings.format == "auto" and not terminal)
        return cls(json=json, colours=terminal and not json and "NO_COLOR" not in os.environ)

    @property
    def render(self) -> Renderer:
        return json_line if self.json else functools.partial(console_line, colours=self.colours)

    def access(self, channel: SinkQueue) -> AccessLog:
        return json_access(channel) if self.json else console_access(channel, colours=self.colours)


def _files(settings: LogSettings) -> tuple[Sink, Sink]:
    """The two files; ``~`` is expanded in their defaults alone (docs/wire/api.md section 19)."""
    main = Path(settings.file_path or Path(DEFAULT_FILE).expanduser())
    access = Path(settings.access_file_path or Path(DEFAULT_ACCESS_FILE).expanduser())
    first = FileSink(main, settings.file_max_bytes, settings.file_backup_count)
    if access.absolute() == main.absolute():
        return first, first
    return first, FileSink(access, settings.file_max_bytes, settings.file_backup_count)


def _dropped(render: Renderer, count: int) -> bytes:
    return render(
        {
            "timestamp": datetime.now(UTC),
            "level": "warning",
            "logger": "shoal.logs",
            "event": "log lines dropped: their destination was stuck",
            "count": count,
        }
    )
