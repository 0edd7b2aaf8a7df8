"""The agent's log: lines ``time LEVEL text`` on standard error or in a file.

`logging` is not used: its import is a tenth of the time that the agent takes to start.
"""

from __future__ import annotations

import contextlib
import sys
import time

ERROR, INFO = 3, 5
"""The least levels that show them, of those of syslog, 0 to 7. (4 would be warnings, 7 what is for debugging.)"""


class Log:
    """Texts are %-formats, formatted only when they are written. What cannot be written is lost."""

    def __init__(self) -> None:
        self._level = 6
        self._path: str | None = None

    def start(self, level: int, path: str | None) -> None:
        """Up to `level`, into the file at `path`; None is standard error. Raises OSError for a file that cannot be."""
        if path is not None:
            with open(path, "a", encoding="utf-8"):
                pass
        self._level, self._path = level, path

    def stop(self) -> None:
        """Says nothing from now on."""
        self._level = 0

    def info(self, text: str, *values: object) -> None:
        self._write(INFO, "INFO", text, values)

    def error(self, text: str, *values: object, cause: BaseException | None = None) -> None:
        """`cause` adds a traceback."""
        self._write(ERROR, "ERROR", text, values, cause)

    def _write(
        self, level: int, name: str, text: str, values: tuple[object, ...], cause: BaseException | None = None
    ) -> None:
        if level > self._level:
            return
        now = time.time()
        shown = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"{shown},{int(now % 1 * 1000):03d} {name} {text % values if values else text}\n"
        if cause is not None:
            import traceback  # seldom needed

            line += "".join(traceback.format_exception(cause))
        with contextlib.suppress(OSError, ValueError):  # ValueError: standard error is closed
            if self._path is None:
                sys.stderr.write(line)
                sys.stderr.flush()
            else:
                with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
                    file.write(line)


LOG = Log()
