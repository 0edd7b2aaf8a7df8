"""Starting one sandbox: scripts, control groups, the process, and the wait until it runs. Everything here blocks."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from shoal.errors import EngineFailure
from shoal_local.confine.files import Confinement
from shoal_local.image.cache import RootFs
from shoal_local.limit import disk
from shoal_local.limit.cgroups import Cgroups, born_into
from shoal_local.limit.limits import Limits
from shoal_local.network import namespace, outward
from shoal_local.network.modes import Network
from shoal_local.network.names import files
from shoal_local.network.spares import Spare, Spares
from shoal_local.root.assembly import Root
from shoal_local.root.binds import Bind, checks, placements
from shoal_local.root.blueprint import Drawer, Place
from shoal_local.root.mounts import bubblewrap, fstab
from shoal_local.root.paths import executable, resolve
from shoal_local.run.command import CODE, locate
from shoal_local.run.keyring import leave_session_keyring
from shoal_local.run.launch import Launcher, LauncherGone
from shoal_local.run.process import Process, children, ended, identify, open_pidfd
from shoal_local.run.scripts import (
    ASK_NETWORK,
    AWAIT_NETWORK,
    BORN,
    NETWORK,
    READY,
    Drop,
    SandboxProgram,
    Tools,
    bare_stage,
    bubblewrap_arguments,
    bubblewrap_stage,
    mount_all,
    needs_env_tool,
    opening,
    unshare_command,
    unshare_inner,
    unshare_stage,
)
from shoal_local.snapshot.library import LayerSnapshot
from shoal_local.state.box import Box, Started

TOOL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECONDS: Final = 30.0
MOVED_TRIES: Final = 20
"""Tries of a start that met a mount of this machine which had just gone."""
_ERROR_LIMIT: Final = 4096
_MOUNT_GONE: Final = re.compile(r"mount point (does not exist|not mounted)")
_POLL_INTERVAL: Final = 0.002
SCRATCH: Final = ("stage", "inner", "args", "fstab", "entered", "mounted", NETWORK)

T = TypeVar("T")
Method = Literal["bubblewrap", "unshare", "none"]


class Isolation(Struct, frozen=True):
    """How sandboxes are kept in on this machine, as `probe` found it.

    Attributes:
        staged: bubblewrap only: is its root built before, in a mount namespace of unshare(1)?
        network: the network of a sandbox; None = this machine's.
        confinement: the filter of system calls; None = there is none.
        disk: by what the bound of a sandbox's disk is kept; None = it is not.
        launcher: starts processes in their control groups; None = they join those themselves.
        spares: networks made in advance.
        mountpoint: the empty directory that every sandbox builds its root on, each in its own mount namespace.
    """

    method: Method
    overlay: bool
    staged: bool
    drop: Drop | None
    tools: Tools
    mountpoint: Path
    hidden: tuple[Path, ...]
    dev: Path
    templates: Path
    disk: disk.Method | None = None
    network: Network | None = None
    confinement: Confinement | None = None
    launcher: Launcher | None = None
    spares: Spares | None = None

    @property
    def owner(self) -> tuple[int, int] | None:
        """Who owns the sandboxes' files; None = the server's own user."""
        return None if self.drop is None else (self.drop.uid, self.drop.gid)

    @property
    def user(self) -> tuple[int, int]:
        """The user and group that sandboxes run as."""
        return self.owner or (os.geteuid(), os.getegid())

    @property
    def place(self) -> Place:
        """How roots are built."""
        # bwrap makes a /dev of its own unless it is handed a finished root.
        dev = None if self.method == "bubblewrap" else self.dev
        return Place(self.overlay, self.drop is None, self.owner, self.hidden, dev, self.templates, files(self.network))


class Order(Struct, frozen=True):
    """One sandbox to be started, of an image or of a snapshot over it.

    ``workload.argv[0]`` is still as the caller wrote it.
    """

    box: Box
    rootfs: RootFs
    workload: SandboxProgram
    binds: tuple[Bind, ...]
    limits: Limits
    agent: Path | None = None
    snapshot: LayerSnapshot | None = None


def start(order: Order, isolation: Isolation, drawer: Drawer, groups: Cgroups) -> Started:
    """Start the sandbox and return once its command is running. Raises EngineFailure with what the tools said.

    The box must exist, with its spec written and nothing else in it.
    """
    box = order.box
    workload = _resolved(order)
    joins = groups.create(box.id, order.limits)
    begin = opening(box.path, joins, _rlimits(order.limits, groups))
    spare = _spare(isolation, box)
    try:
        command = _write_scripts(order, isolation, drawer, workload, begin, connected=spare is not None)
        started = _spawn(box, isolation, command, born_into(joins), () if spare is None else spare.namespaces)
    finally:
        if spare is not None:
            spare.leave()
    if spare is not None:
        started = replace(started, net=spare.process)
    if isolation.network is not None and not isolation.staged and isolation.method == "bubblewrap":
        started = _finish_network(box, started, isolation.network)
    for name in SCRATCH:
        (box.path / name).unlink(missing_ok=True)  # they hold the environment
    if order.snapshot is not None:
        disk.clear_point(box.path)
    box.write_started(started)
    return started


def _spare(isolation: Isolation, box: Box) -> Spare | None:
    """A network made in advance, now the sandbox's, where the stage can be started in it. Raises OSError."""
    network, spares = isolation.network, isolation.spares
    if network is None or spares is None or not (isolation.staged or isolation.method == "unshare"):
        return None
    return spares.take(network, box)


def _finish_network(box: Box, started: Started, network: Network) -> Started:
    """bwrap made the namespace, and brought the loopback interface up, but leaves ports below 1024 closed."""
    if started.init is not None and started.init.alive():
        handle = namespace.of(started)
        try:
            return replace(started, net=_connect_network(box, network, handle))
        finally:
            os.close(handle)
    return started


def _resolved(order: Order) -> SandboxProgram:
    """The workload with the path of its command, or env(1) before it where a variable or the search needs that."""
    given, root = order.workload, order.rootfs.path
    path = given.env.get("PATH", TOOL_PATH)
    mounted = any(given.argv[0].startswith(f"{bind.target.rstrip('/')}/") for bind in order.binds)
    # A command on a volume, or of a snapshot, may not be below the image; then execve has the only word.
    searched = order.snapshot is not None and "/" not in given.argv[0] and "=" not in given.argv[0]
    unknown = mounted or searched or (order.snapshot is not None and "/" in given.argv[0])
    program = given.argv[0] if unknown else locate(root, given.argv[0], path, given.cwd)
    special = [name for name in given.env if needs_env_tool(name)]
    if not special and not searched:
        return SandboxProgram((program, *given.argv[1:]), given.env, given.cwd)
    tool = next((place for place in ("/usr/bin/env", "/bin/env") if executable(resolve(root, place))), None)
    if tool is None:
        what = f"setting {special[0]}" if special else f"finding {program} in a restored root"
        raise EngineFailure(CODE, f"the image has no env command, which {what} needs")
    plain = {name: value for name, value in given.env.items() if name not in special}
    pairs = [f"{name}={given.env[name]}" for name in special]
    return SandboxProgram((tool, *pairs, program, *given.argv[1:]), plain, given.cwd)


def _write_scripts(
    order: Order, isolation: Isolation, drawer: Drawer, workload: SandboxProgram, begin: str, *, connected: bool
) -> list[str]:
    """Write what the namespaces run; returns the command that enters them. ``connected``: it has a network by then."""
    box, tools, drop, top = order.box.path, isolation.tools, isolation.drop, isolation.mountpoint
    if isolation.method == "none":
        _write(box / "stage", begin + bare_stage(tools, drop, workload))
        return [tools.sh, str(box / "stage")]
    staged = isolation.method == "unshare" or isolation.staged
    layers = box
    if order.limits.disk is not None and isolation.disk is not None:
        layers = box / disk.FOLDER
        layers.mkdir(mode=0o755)
    root = Root(layers, order.rootfs, drawer, order.snapshot)
    mounts = root.mounts(order.binds, workload.cwd, staged=staged, agent=order.agent)
    own, confined = isolation.network is not None and not connected, isolation.confinement
    seccomp = None if confined is None else confined.filter
    if not staged:
        args = bubblewrap_arguments([*bubblewrap(mounts, box), "--dev", "/dev"], workload, network=own)
        _write(box / "args", args)
        _write(box / "stage", begin + bubblewrap_stage(tools, drop, workload, [], seccomp))
        return [tools.sh, str(box / "stage")]
    build = _build(order, isolation, layers, root.places)
    user = drop is None and not connected  # a network of an ordinary user's comes with its user namespace
    if own:
        begin += ASK_NETWORK
        os.mkfifo(box / NETWORK, 0o600)
    if isolation.method == "unshare":
        build += [AWAIT_NETWORK] if own else []
        _write(box / "fstab", fstab(mounts, top, layers))
        _write(box / "inner", unshare_inner(tools, workload, confined=confined is not None))
        _write(
            box / "stage", begin + unshare_stage(tools, drop, build, top, None if confined is None else confined.entry)
        )
        for name in ("entered", "mounted"):
            os.mkfifo(box / name, 0o600)
        return unshare_command(tools, box / "stage", user=user, isolate=True, network=own)
    _write(box / "fstab", fstab([mount for mount in mounts if mount.kind != "proc"], top, layers))
    args = bubblewrap_arguments(["--bind", str(top), "/", "--dev", "/dev"], workload, network=False)
    _write(box / "args", args)
    _write(box / "stage", begin + bubblewrap_stage(tools, drop, workload, build, seccomp, waits=own))
    return unshare_command(tools, box / "stage", user=user, isolate=False, network=own)


def _build(order: Order, isolation: Isolation, layers: Path, places: list[str]) -> list[str]:
    """The commands that build the root: its disk, the mounts, checks of the volumes, and these at their places."""
    tools, box, size = isolation.tools, order.box.path, order.limits.disk
    stat, mount = tools.stat or "stat", tools.mount or "mount"
    own: list[str] = []
    if layers != box and isolation.disk is not None and size is not None:
        disk.prepare(isolation.disk, box, size)
        own = disk.commands(isolation.disk, box, size, mount)
    placed = placements(order.binds, places, layers, isolation.mountpoint, stat, mount)
    return [*own, mount_all(tools), *checks(order.binds, layers, stat), *placed]


def _rlimits(limits: Limits, groups: Cgroups) -> list[str]:
    if limits.memory is None or groups.label("memory") is not None:
        return []
    return [f"ulimit -v {max(1, limits.memory // 1024)}"]


def _spawn(
    box: Box, isolation: Isolation, command: list[str], group: Path | None, namespaces: Sequence[int]
) -> Started:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    handles = [writer]
    try:
        handles.append(box.take_lock())
        log = os.open(box.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        handles.append(log)
        if isolation.drop is not None:
            os.fchown(log, isolation.drop.uid, isolation.drop.gid)  # so that it may open /dev/stdout
        pid = _launch(box, isolation, command, (handles[1], log, writer), group, namespaces)
    except BlockingIOError:
        os.close(reader)
        raise EngineFailure(CODE, "an earlier try of this sandbox is still ending", retry_after=1.0) from None
    except BaseException:
        os.close(reader)
        raise
    finally:
        for handle in handles:
            os.close(handle)
    try:
        return _wait(box, isolation, pid, reader)
    finally:
        os.close(reader)


def _launch(
    box: Box,
    isolation: Isolation,
    command: list[str],
    streams: tuple[int, int, int],
    group: Path | None,
    namespaces: Sequence[int],
) -> int:
    """Start the stage; ``streams`` are the lock, the log and the pipe to this process.

    Raises LauncherGone if it would run elsewhere than in ``namespaces``.
    """
    env = {"PATH": TOOL_PATH, "LC_ALL": "C", "SHOAL_SANDBOX": box.id}
    if isolation.launcher is not None and (group is not None or namespaces):
        born = {} if group is None else {BORN: "1"}
        pid = isolation.launcher.launch(command, {**env, **born}, streams, group, namespaces)
        if pid is not None:
            return pid
    if namespaces:
        raise LauncherGone
    leave_session_keyring()
    return os.posix_spawn(
        command[0],
        command,
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, stream, place) for place, stream in enumerate(streams)],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _wait(box: Box, isolation: Isolation, pid: int, reader: int) -> Started:
    """Read the status pipe until ``ready``, or until it closes."""
    deadline = time.monotonic() + START_SECONDS
    said, asked, net = b"", f"{NETWORK}\n".encode(), None
    with ExitStack() as opened:
        while READY.encode() + b"\n" not in said:
            data = _read(reader, deadline)
            if not data:
                break
            said = (said + data)[-_ERROR_LIMIT:]
            if said.startswith(asked) and isolation.network is not None:
                said = said[len(asked) :]
                net = _set_up_network(box, isolation.network, pid, opened)
        else:
            return replace(_frame(isolation, pid, box), net=net)
    if isolation.method == "bubblewrap" and not said.strip():
        return replace(_wait_for_bubblewrap(box, isolation, pid, deadline), net=net)
    raise _failure(box, said)


def _set_up_network(box: Box, network: Network, pid: int, opened: ExitStack) -> Process | None:
    """Set up the new namespace that the process is in, and let the stage go on; ``opened`` holds until it has read.

    Returns the process that connects it, if any does.
    """
    handle = namespace.open_namespace(pid)
    if handle is None:
        raise EngineFailure(CODE, "cannot start: the sandbox got no network of its own")
    try:
        process = _connect_network(box, network, handle)
    finally:
        os.close(handle)
    # Opened for both, it waits for no reader, and what is written stays for as long as it is open.
    fifo = os.open(box.path / NETWORK, os.O_RDWR | os.O_CLOEXEC)
    opened.callback(os.close, fifo)
    os.write(fifo, b"up\n")
    return process


def _connect_network(box: Box, network: Network, handle: int) -> Process | None:
    network.broker.set_up(handle)
    if network.pasta is None:
        return None
    return outward.connect(network.pasta, network.broker, handle, network.allowed, box.path)


def _read(reader: int, deadline: float) -> bytes:
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise EngineFailure(CODE, f"the sandbox did not start within {START_SECONDS:.0f} seconds")
    return os.read(reader, _ERROR_LIMIT)


def _frame(isolation: Isolation, pid: int, box: Box) -> Started:
    top = identify(pid)
    if top is None:
        raise _failure(box, b"")
    init: Process | None = None
    if isolation.method == "unshare":
        inner = children(pid)
        init = identify(inner[0]) if inner else None
    return Started(top, init, datetime.now(UTC))


def _wait_for_bubblewrap(box: Box, isolation: Isolation, pid: int, deadline: float) -> Started:
    """bwrap does not say when the command runs: look, closely, until its child is no longer bwrap itself."""
    top = identify(pid)
    handle = None if top is None else open_pidfd(top)
    try:
        init: int | None = None
        while handle is not None and not ended(handle, _POLL_INTERVAL):
            init = init or box.child_pid()
            inner = children(init) if init is not None else []
            if (
                top is not None
                and init is not None
                and inner
                and _runs_other_than(inner[0], isolation.tools.bwrap or "")
            ):
                return Started(top, identify(init), datetime.now(UTC))
            if time.monotonic() > deadline:
                raise EngineFailure(CODE, f"the sandbox did not start within {START_SECONDS:.0f} seconds")
    finally:
        if handle is not None:
            os.close(handle)
    if top is None or box.ended() is None or _bubblewrap_complains(box):
        raise _failure(box, b"")
    return Started(top, None, datetime.now(UTC))  # it was quick


def _bubblewrap_complains(box: Box) -> bool:
    """bwrap reports its own errors where the command's output goes, each with its name in front."""
    with box.log.open("rb") as file:
        return file.read(7) == b"bwrap: "


def _runs_other_than(pid: int, program: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink() != Path(program).resolve()
    return False


class MountsMoved(EngineFailure):
    """A mount of this machine went away between reading their list and making each read-only; another try may do.

    Container engines on the same machine mount and unmount all the time.
    """


def beside_moving_mounts(attempt: Callable[[], T]) -> T:
    """What ``attempt`` returns, tried again while mounts of this machine move. Raises what the last try raises.

    It is tried again without the launcher's answer, too: ``attempt`` begins by ending what an earlier one started.
    """
    for _ in range(MOVED_TRIES - 1):
        with suppress(MountsMoved, LauncherGone):
            return attempt()
    return attempt()


class DiskFull(EngineFailure):
    """There is no room for a sandbox's files."""

    def __init__(self) -> None:
        super().__init__(CODE, "cannot start: no space is left on the disk of local.state_dir")


def no_space(error: Exception) -> bool:
    """Does it say that a disk, or a quota, is full?"""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskFull)


def _failure(box: Box, said: bytes) -> EngineFailure:
    text = said.decode(errors="replace").strip()
    if not text:
        with suppress(OSError):
            text = box.log.read_bytes()[-_ERROR_LIMIT:].decode(errors="replace").strip()
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return DiskFull()
    kind = MountsMoved if _MOUNT_GONE.search(text) else EngineFailure
    return kind(CODE, f"cannot start: {' / '.join(text.splitlines()) or 'the sandbox ended during set-up'}")


def _write(path: Path, content: str | bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
