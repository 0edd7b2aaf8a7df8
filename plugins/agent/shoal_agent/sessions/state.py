"""What lasts from one run of a session to the next: changes of exported variables, and the directory."""

from __future__ import annotations

import contextlib
import os
import re

from shoal_agent.commands.store import OutputStore
from shoal_agent.sessions.exported import Malformed, parse

MAX_STATE_BYTES = 16 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PER_RUN = frozenset({"PWD", "SHLVL", "_"})
"""Every shell makes these itself."""


class SessionState:
    """Starts as the agent's environment; only what the session changed is kept, so the rest stays fresh."""

    def __init__(self, cwd: str) -> None:
        self.cwd = cwd
        self._set: dict[str, str] = {}
        self._unset: set[str] = set()

    def environment(self, base: dict[str, str]) -> dict[str, str]:
        """What the next run starts with."""
        kept = {name: value for name, value in base.items() if name not in self._unset}
        return {**kept, **self._set}

    def learn(self, begun: dict[str, str], report: bytes) -> None:
        """Takes over what a run that began with `begun` reported at its end. An incomplete report changes nothing."""
        exported, mark, cwd = report.rpartition(b"\0")
        if not mark:
            return
        try:
            found = {_text(name): _text(value) for name, value in parse(exported).items()}
        except Malformed:
            return
        self.cwd = _text(cwd) or self.cwd
        for name in found.keys() - _PER_RUN:
            if begun.get(name) != found[name]:
                self._set[name] = found[name]
                self._unset.discard(name)
        for name in begun.keys() - found.keys() - _PER_RUN:
            if _NAME.match(name):  # others a shell does not show at all
                self._set.pop(name, None)
                self._unset.add(name)


class Report:
    """A file that a shell of the same user can write to by its path.

    It is in memory, named by this process's descriptor. Where nobody may look into this process, as into the agent of
    a local sandbox, it is one of `store`.

    Raises `ApiError` 507 if no directory takes that.
    """

    def __init__(self, store: OutputStore) -> None:
        self._file: str | None = None
        if os.stat("/proc/self/fd").st_uid == os.geteuid():
            self._descriptor = os.memfd_create("shoal-session", os.MFD_CLOEXEC)
            self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        else:
            self.path, self._descriptor = store.create(os.urandom(8).hex())
            self._file = self.path

    def close(self) -> bytes:
        """What has been written. Called once."""
        try:
            return os.pread(self._descriptor, MAX_STATE_BYTES, 0)
        finally:
            os.close(self._descriptor)
            if self._file is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._file)


def wrapped(command: str, report: Report) -> str:
    """`command`, after which the shell reports. On one line with it, so that lines keep their numbers.

    A trap, so that `exit` and `set -e` report too. Its own output goes nowhere, whatever the shell's options.
    """
    dump = f'{{ export -p; printf "\\0%s" "$PWD"; }} 2>/dev/null >{report.path}'
    return f"trap '{dump}' EXIT;{command}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
