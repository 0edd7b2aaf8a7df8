"""The directory of one sandbox: everything that must outlive the server.

::

    <id>/spec.json    what was asked for, without the caller's secrets; complete before anything runs
         lock         locked for as long as a process of the sandbox's frame lives; needs no trust in pids
         net          what connects it to the internet, if that was made in advance; see `shoal_local.network.spares`
         started      the processes as first seen running, each with start time and boot id; written once it runs
         exit         how it ended: a number, or bubblewrap's status lines
         paused       present while stopped by signals (without a freezer)
         captured     present while a snapshot is being taken, for which the processes stand still
         events       one line of JSON for each thing that befell it
         output.log   its output
         …            its layers and private directories

Files are replaced by renaming, never synced: after a power failure no process is left that they could describe.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from shoal.models.workload import Adoption
from shoal_local.image.cache import RootFs
from shoal_local.limit.limits import Enforcement, Limits
from shoal_local.run.process import Process
from shoal_local.state.records import decode, encode

T = TypeVar("T")


class Spec(Struct, kw_only=True, omit_defaults=True):
    """What the server needs to know of a sandbox that it did not start itself, and what ``inspect`` shows.

    Attributes:
        isolation: ``bubblewrap``, ``unshare`` or ``none``.
        root: how its root is made up, in words.
        env: names and values as they may be shown.
        volumes: one line each.
        network: ``host`` for one that shares this machine's, as all did once; else ``internet`` or ``none``.
        agent: are the agent's files in it?
        agent_digest: of those files.
        rootfs: what lies below its own layers; None for one that an earlier version made.
        groups: did it get control groups?
        labels: what plugins had attached; may be secret, as the file is, and not shown.
    """

    id: str
    adoption: Adoption
    isolation: str
    root: str
    workdir: str
    uid: int
    gid: int
    limits: Limits
    enforced: Enforcement
    env: dict[str, str] = {}
    volumes: list[str] = []
    network: str = "host"
    agent: bool = False
    agent_digest: str = ""
    rootfs: RootFs | None = None
    labels: dict[str, str] = {}


class Started(Struct, omit_defaults=True):
    """The frame of a running sandbox. ``top`` outlives ``init``, which takes every other process with it.

    ``since`` is when it was last paused or resumed, if ever; ``net`` connects it to the internet, beside the frame.
    """

    top: Process
    init: Process | None
    at: datetime
    since: datetime | None = None
    net: Process | None = None


class Event(Struct, omit_defaults=True):
    at: datetime
    kind: str
    message: str = ""


class Box:
    """Access to one sandbox's directory. Calls are short file operations."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @property
    def log(self) -> Path:
        return self.path / "output.log"

    def spec(self) -> Spec | None:
        """None if it was never completed."""
        return self._read("spec.json", Spec)

    def write_spec(self, spec: Spec) -> None:
        self._write("spec.json", encode(spec))

    def started(self) -> Started | None:
        """None until the sandbox was seen running."""
        return self._read("started", Started)

    def write_started(self, started: Started) -> None:
        self._write("started", msgspec.json.encode(started))

    def net(self) -> Process | None:
        """The process that connects it, of a network that was made in advance."""
        return self._read("net", Process)

    def write_net(self, process: Process) -> None:
        self._write("net", msgspec.json.encode(process))

    def take_lock(self) -> int:
        """An exclusively locked descriptor for the sandbox to inherit. Raises BlockingIOError if one holds it."""
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def locked(self) -> bool:
        """Does any process of the sandbox's frame live?"""
        try:
            handle = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared, so that two askers do not see each other
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def ended(self) -> tuple[int, datetime] | None:
        """Exit code as a shell counts (128 + signal) and the time; None if it left none."""
        try:
            file = self.path / "exit"
            text, when = file.read_text(), datetime.fromtimestamp(file.stat().st_mtime, UTC)
        except OSError:
            return None
        code = _exit_code(text)
        return None if code is None else (code, when)

    def child_pid(self) -> int | None:
        """The pid that bubblewrap reported for its init; None before that."""
        with suppress(OSError):
            return _status_number((self.path / "exit").read_text(), "child-pid")
        return None

    def paused(self) -> bool:
        return (self.path / "paused").exists()

    def mark_paused(self, paused: bool) -> None:
        if paused:
            (self.path / "paused").touch()
        else:
            (self.path / "paused").unlink(missing_ok=True)

    def captured(self) -> bool:
        """Is a snapshot being taken, or was one when the server was killed?"""
        return (self.path / "captured").exists()

    def mark_captured(self, captured: bool) -> None:
        if captured:
            (self.path / "captured").touch()
        else:
            (self.path / "captured").unlink(missing_ok=True)

    def add_event(self, kind: str, message: str = "", at: datetime | None = None) -> None:
        """Note what happened, if there is room for it; a directory that is gone meanwhile is fine."""
        line = msgspec.json.encode(Event(at or datetime.now(UTC), kind, message)) + b"\n"
        with suppress(OSError), (self.path / "events").open("ab") as file:
            file.write(line)

    def events(self) -> list[Event]:
        """Oldest first; a line cut short by a crash is left out."""
        found = []
        with suppress(FileNotFoundError):
            for line in (self.path / "events").read_bytes().splitlines():
                with suppress(msgspec.MsgspecError):
                    found.append(msgspec.json.decode(line, type=Event))
        return found

    def _read(self, name: str, kind: type[T]) -> T | None:
        with suppress(OSError, msgspec.MsgspecError):
            return decode((self.path / name).read_bytes(), kind)
        return None

    def _write(self, name: str, content: bytes) -> None:
        draft = self.path / f".{name}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        draft.rename(self.path / name)


def _exit_code(text: str) -> int | None:
    if not text.endswith("\n"):
        return None
    if text.startswith("{"):
        return _status_number(text, "exit-code")
    with suppress(ValueError):
        return int(text)
    return None


def _status_number(text: str, key: str) -> int | None:
    for line in text.splitlines():
        with suppress(msgspec.MsgspecError):
            value = msgspec.json.decode(line, type=dict[str, object]).get(key)
            if isinstance(value, int):
                return value
    return None
