"""What this machine can do, found out by really doing it once, at start."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal.errors import ConfigError, EngineFailure
from shoal_local.config import LocalSettings
from shoal_local.image.cache import RootFs
from shoal_local.limit.cgroups import Cgroups
from shoal_local.limit.limits import Limits
from shoal_local.network import namespace
from shoal_local.network.modes import WORDS, Network
from shoal_local.root.blueprint import Drawer
from shoal_local.run.reaper import discard, stop
from shoal_local.run.scripts import SandboxProgram, Tools
from shoal_local.run.spawn import TOOL_PATH, DiskFull, Isolation, Method, Order, beside_moving_mounts, no_space, start
from shoal_local.state.box import Box, Started

_HELP: Final = (
    "install bubblewrap (for example: apt-get install bubblewrap), or allow user namespaces for this user "
    "(sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, "
    "user.max_user_namespaces and user.max_net_namespaces above 0), "
    'or give up isolation with [local] isolation = "none"'
)


def find_tools() -> Tools:
    """Where the programs are. Raises ConfigError if there is no shell."""

    def which(name: str) -> str | None:
        return shutil.which(name, path=TOOL_PATH)

    shell = which("sh")
    if shell is None:
        raise ConfigError("the local runtime needs sh")
    return Tools(shell, which("unshare"), which("mount"), which("setpriv"), which("stat"), which("bwrap"))


class Impossible(ConfigError):
    """No form of isolation works here; ``tried`` says why not, for each."""

    def __init__(self, tried: list[str]) -> None:
        super().__init__(f"the local runtime cannot isolate sandboxes here ({'; '.join(tried)}): {_HELP}")
        self.tried = tried


class Verdict(Struct, frozen=True):
    """How sandboxes are kept in, and what may be wrong about that.

    Attributes:
        doubts: why better forms failed, or this one could not be tried; another look may find otherwise.
        unproven: it could not be tried.
    """

    isolation: Isolation
    doubts: tuple[str, ...] = ()
    unproven: bool = False


def choose(
    settings: LocalSettings,
    make: Callable[[Method, bool, bool], Isolation],
    boxes: Path,
    trash: Path,
    better_than: Isolation | None = None,
) -> Verdict | None:
    """The first form of isolation that starts a real sandbox here.

    On a full disk nothing can be tried: the first form that has its programs is taken, with that doubt.

    Args:
        make: builds an `Isolation` from the method, whether it uses overlays, and whether bubblewrap's root is staged.
        boxes, trash: directories for the trial's files.
        better_than: only forms that come before this one count; None is returned if there is none.

    Raises ConfigError that says what failed and what to do.
    """
    tried: list[str] = []
    doubts: list[str] = []
    for method, overlay, staged in _candidates(settings):
        isolation = make(method, overlay, staged)
        if isolation == better_than:
            return None
        name = f"{method}{' with overlay' if overlay else ''}"
        missing = _missing(isolation)
        if missing is not None:
            tried.append(f"{name}: {missing}")
            continue
        try:
            problem = _try(isolation, boxes, trash)
        except DiskFull as full:
            return Verdict(isolation, (*doubts, f"{name}: {full.message}"), unproven=True)
        if problem is None:
            return Verdict(isolation, tuple(doubts))
        doubts.append(f"{name}: {problem}")
        tried.append(doubts[-1])
    raise Impossible(tried)


def _candidates(settings: LocalSettings) -> Iterator[tuple[Method, bool, bool]]:
    """In order of preference: (method, overlay, staged).

    Bubblewrap gets a root that unshare(1) built where that works: only so it has overlays, and volumes checked
    after mounting. As root it cannot do without: the sandboxes' user cannot reach the server's files.
    """
    if settings.isolation == "none":
        yield "none", False, False
        return
    overlays = (True, False) if settings.overlay == "auto" else (False,)
    if settings.isolation in ("auto", "bubblewrap"):
        yield from (("bubblewrap", overlay, True) for overlay in overlays)
        if os.geteuid() != 0:
            yield "bubblewrap", False, False
    if settings.isolation in ("auto", "unshare"):
        yield from (("unshare", overlay, False) for overlay in overlays)


def _missing(isolation: Isolation) -> str | None:
    tools, method = isolation.tools, isolation.method
    needed = {
        "bwrap": method == "bubblewrap" and tools.bwrap is None,
        "unshare": (method == "unshare" or isolation.staged) and tools.unshare is None,
        "mount": (method == "unshare" or isolation.staged) and tools.mount is None,
        "stat": method != "none" and tools.stat is None,
        "setpriv": isolation.drop is not None and tools.setpriv is None,
    }
    absent = [name for name, lacking in needed.items() if lacking]
    return f"{', '.join(absent)} not found" if absent else None


def _try(isolation: Isolation, boxes: Path, trash: Path) -> str | None:
    """Start and remove a sandbox that does nothing; the reason if that fails. Raises DiskFull."""
    try:
        return beside_moving_mounts(lambda: _trial(isolation, boxes, trash))
    except (EngineFailure, OSError) as error:
        if no_space(error):
            raise DiskFull from None
        return error.message if isinstance(error, EngineFailure) else str(error)


def _trial(isolation: Isolation, boxes: Path, trash: Path) -> str | None:
    box = Box(boxes / f"probe-{os.getpid()}")
    none = Cgroups({})
    workload = SandboxProgram(
        (isolation.tools.sh, "-c", "exec sleep 60"), {"PATH": TOOL_PATH, "OPENSANDBOX_ID": box.id}, "/"
    )
    order = Order(box, RootFs(Path("/"), host=True), workload, (), Limits())
    try:
        box.path.mkdir(mode=0o700)
        started = start(order, isolation, Drawer(isolation.place), none)
        if not box.locked():
            return "a trial sandbox ended at once"
        if isolation.network is not None:
            _try_network(started, isolation.network)
        return None
    finally:
        stop(box, none, 0)
        discard(box, none, trash)


def _try_network(started: Started, network: Network) -> None:
    """Make a socket in the trial sandbox. Raises EngineFailure."""
    handle = namespace.of(started)
    try:
        for each in network.broker.sockets(handle, socket.AF_INET, 1):
            each.close()
    finally:
        os.close(handle)


def describe(isolation: Isolation, groups: Cgroups) -> dict[str, str]:
    """What is and is not isolated, in words, for the log and for ``inspect``."""
    if isolation.method == "none":
        shared = "user, mount, pid, ipc, uts, network: shared with this machine"
        return {"Method": "none", "Isolated": "nothing", "Not isolated": shared, "Root": "this machine's own"}
    layered, plain = "read-only below a private writable layer", "read-only (no overlay file system here)"
    alone = isolation.network is not None
    return {
        "Method": isolation.method,
        "Isolated": f"user, mount, pid, ipc, uts{', network' if alone else ''}",
        "Not isolated": "kernel" if alone else "network (shared with this machine), kernel",
        "System calls": "filtered" if isolation.confinement is not None else "all",
        "Network": WORDS["host" if isolation.network is None else isolation.network.mode],
        "Root": layered if isolation.overlay else plain,
        "Freezer": groups.label("freezer") or "signals",
    }
