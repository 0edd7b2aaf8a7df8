"""A server with the local runtime, on a disk of its own."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.worlds import OneServer, small_disk
from tests.crash.test_kill import running


class LocalWorld(OneServer):
    """Process trees of this machine; the truth is in /proc."""

    def __init__(self, home: Path, token: str) -> None:
        super().__init__(home, "", token, "host")
        self._token = token
        self._sandboxes = self.server.state_dir / "sandboxes"

    def truth(self) -> set[str]:
        """A command that was frozen before it began has not got our token yet; its frame has its id."""
        kept = set(self.leftovers())
        return running(self._token) | {each for each in _frames().values() if each in kept}

    def leftovers(self) -> list[str]:
        return [path.name for path in self._sandboxes.glob("*-*-*-*-*")]

    def end(self) -> None:
        """A clean stop without sandboxes leaves nothing of the server's either."""
        digest = hashlib.sha256(os.fsencode(self.server.state_dir)).hexdigest()[:12]
        assert self.server.stop() == 0
        left = sorted(Path("/sys/fs/cgroup").glob(f"**/shoal-{digest}"))
        assert not left, f"left over: {left}"

    def close(self) -> None:
        """Of a run that failed, nothing goes on."""
        super().close()
        kept = set(self.leftovers())
        for pid, sandbox_id in _frames().items():
            if sandbox_id in kept:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _frames() -> dict[int, str]:
    """Sandbox id by process, of the processes that the local runtime starts around its sandboxes."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            marks = [v for v in environ.read_bytes().split(b"\0") if v.startswith(b"SHOAL_SANDBOX=")]
            found.update({int(environ.parent.name): mark.partition(b"=")[2].decode() for mark in marks})
    return found


@contextmanager
def local_world(home: Path, token: str) -> Iterator[LocalWorld]:
    """Its home is a small file system of its own, so that a full one harms nobody else."""
    with small_disk(home, 256):
        world = LocalWorld(home, token)
        try:
            yield world
            world.end()
        finally:
            world.close()
