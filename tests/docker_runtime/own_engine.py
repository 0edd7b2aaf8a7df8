"""A Docker engine of a test's own, for what nobody may do to one that others use: stop it, hang it, fill its disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import docker.errors
from tests.docker_runtime.engines import DOCKER_HOST, bring_images

PATIENCE = 60


class OwnEngine:
    """A ``dockerd`` with a store, a socket, a containerd and a network namespace of its own.

    The namespace is what keeps it off the interfaces and packet filters of the other engine, which every dockerd takes
    for its own. No bridge is made in it: sandboxes use the modes ``host`` and ``none``.

    Args:
        home: a short path (a socket's is at most 108 bytes) that holds everything of it.
        live_restore: containers outlive the engine.
    """

    def __init__(self, home: Path, *, live_restore: bool = False) -> None:
        self._socket = str(home / "docker.sock")
        self.host = f"unix://{self._socket}"
        self.log = home / "dockerd.log"
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        directories = {"data-root": "data", "exec-root": "exec", "pidfile": "dockerd.pid"}
        self._command = [
            *(
                "unshare",
                "--net",
                "dockerd",
                "--host",
                self.host,
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
            ),
            *(f"--{option}={home / name}" for option, name in directories.items()),
            *(["--live-restore"] if live_restore else []),
            *_runtime(),
        ]

    def start(self) -> None:
        """Start, and return once it answers."""
        (self._home / "dockerd.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not self.answers():
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it is there."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(5)
            try:
                asking.connect(self._socket)
                asking.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 " in asking.recv(64)
            except OSError:
                return False

    def stop(self) -> None:
        """As a machine's administrator does it: SIGTERM."""
        self._signal(signal.SIGTERM)
        assert self._process is not None
        self._process.wait(PATIENCE)

    def kill(self) -> None:
        """As a machine that runs out of memory does it: SIGKILL."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(PATIENCE)
        # Its containerd died with it. Where nobody reaps that, the next engine would take it for alive.
        (self._home / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def hang(self) -> None:
        """It is there and takes connections, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again, also what it was asked meanwhile."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Nothing of it is left: containers, mounts, processes."""
        assert self._process is not None
        if self._process.poll() is None:
            self.go_on()
        elif not self.answers():
            self.start()
        client = docker.DockerClient(base_url=self.host, timeout=PATIENCE)
        for container in client.api.containers(all=True):
            with suppress(docker.errors.NotFound):
                client.api.remove_container(container["Id"], force=True, v=True)
        client.close()
        self.stop()

    def _signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(which)


@contextmanager
def own_engine(*, megabytes: int = 400, live_restore: bool = False) -> Iterator[OwnEngine]:
    """An engine that runs and holds the test images, its store a file system of that size in memory."""
    home = Path(tempfile.mkdtemp(prefix="shoal-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", home], check=True)
    engine = OwnEngine(home, live_restore=live_restore)
    try:
        engine.start()
        try:
            bring_images(engine.host)
            yield engine
        finally:
            engine.end()
    finally:
        subprocess.run(["umount", "--recursive", "--lazy", home], check=True)
        shutil.rmtree(home)


def missing() -> str | None:
    """Why there can be no engine of a test's own; None if there can."""
    if os.geteuid() != 0:
        return "an engine of a test's own needs root"
    absent = [program for program in ("dockerd", "unshare") if shutil.which(program) is None]
    return f"{absent[0]} is not installed" if absent else None


def _runtime() -> list[str]:
    """The way in which the shared engine starts containers, where that is a special one."""
    client = docker.DockerClient(base_url=DOCKER_HOST, timeout=60)
    info = client.api.info()
    client.close()
    name = info["DefaultRuntime"]
    path = info["Runtimes"][name]["path"]
    return [] if path == "runc" else [f"--add-runtime={name}={path}", f"--default-runtime={name}"]
