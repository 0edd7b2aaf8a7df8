"""The way from a sandbox to the internet: pasta(1), one process for each sandbox, and what is closed.

pasta turns what a sandbox sends into sockets of an ordinary process on this machine, so it needs no privileges. By
itself it lets through whatever this machine reaches: the packet filter in the sandbox's namespace, on which nothing
inside has a say, closes private networks, other machines on the link, metadata services, and this machine itself.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from shoal.errors import EngineFailure
from shoal_local.network.broker import NS_GET_USERNS
from shoal_local.network.client import CODE, Broker
from shoal_local.run.process import Process, identify

ADDRESS: Final = "10.0.2.15"
GATEWAY: Final = "10.0.2.2"
RESOLVER: Final = "10.0.2.3"
"""Of every sandbox; nobody but pasta sees them."""
NAME_SERVICE: Final = 53
"""The one port on which pasta answers as `RESOLVER`. On others it connects to a machine that really has the address."""
CLOSED: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
    *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    "168.63.129.16/32",
)
"""What is not the internet (IANA's registry of special-purpose addresses), and the metadata service of one cloud that
has a public address."""
START_SECONDS: Final = 10.0
_PID: Final = "pasta.pid"


def closed() -> list[str]:
    """`CLOSED`, and every address of this machine."""
    return [*CLOSED, *own_networks(Path("/proc/net/fib_trie").read_text())]


def own_networks(text: str) -> list[str]:
    """What a machine takes as its own, mostly single addresses, in a `/proc/net/fib_trie`."""
    found, leaf = [], ""
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words[1:] == ["host", "LOCAL"]:
            found.append(leaf + words[0])
    return list(dict.fromkeys(found))


def connect(program: str, broker: Broker, namespace: int, allowed: Sequence[str], box: Path) -> Process:
    """Close what is to be closed, then connect the namespace; returns pasta once it runs. Raises EngineFailure."""
    broker.restrict(namespace, [f"{RESOLVER}/32:{NAME_SERVICE}", *allowed], closed())
    words = [program, "--quiet", "--ipv4-only", "--config-net", "--address", ADDRESS, "--netmask", "255.255.255.0"]
    words += ["--gateway", GATEWAY, "--dns-forward", RESOLVER, "--no-map-gw", "--no-dhcp"]
    words += ["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"]
    words += ["--ns-ifname", "eth0", "--pid", str(box / _PID), "--netns", "/proc/self/fd/5"]
    with ExitStack() as opened:
        actions = [(os.POSIX_SPAWN_DUP2, namespace, 5)]
        if os.geteuid() == 0:
            words += ["--runas", "0"]
        else:
            owner = fcntl.ioctl(namespace, NS_GET_USERNS)
            opened.callback(os.close, owner)
            words += ["--userns", "/proc/self/fd/6"]
            actions.append((os.POSIX_SPAWN_DUP2, owner, 6))
        said, failed = _run(words, actions, box.name)
    pid = _pid(box / _PID)
    process = None if failed or pid is None else identify(pid)
    if process is None:
        raise EngineFailure(CODE, f"{program} does not connect the sandbox: {said or 'it ended'}")
    return process


def _run(words: list[str], actions: list[tuple[int, int, int]], sandbox_id: str) -> tuple[str, bool]:
    """What the program complained of, and whether it failed; once it works it goes on by itself, behind."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb") as output:
        try:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            streams = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
            pid = os.posix_spawn(
                words[0],
                words,
                {"SHOAL_SANDBOX": sandbox_id, "PATH": os.defpath},
                file_actions=[*actions, *streams],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP),
            )
            os.close(null)
        finally:
            os.close(writer)
        status = _wait(pid)
        os.set_blocking(output.fileno(), False)
        said = (output.read(2000) or b"").decode(errors="replace")
    return " / ".join(line for line in said.splitlines() if "syslog" not in line), status != 0


def _wait(pid: int) -> int:
    handle = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(START_SECONDS * 1000):
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    return os.waitpid(pid, 0)[1]


def _pid(file: Path) -> int | None:
    """The number in the file, which is written a moment after the program has gone behind."""
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            time.sleep(0.001)
    return None
