"""A Unix socket before the engine's own, so that a test can take "the engine" away and give it back."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path


class EngineRelay:
    """Relays connections in threads of its own.

    Args:
        path: where clients connect.
        target: the engine's socket.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.host = f"unix://{path}"
        self._path = path
        self._target = target.removeprefix("unix://")
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def up(self) -> None:
        """Listen."""
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections and drop those there are, as an engine that is stopped does."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            dropped, self._open = self._open, set()
        for end in dropped:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def passing(self, chunk: bytes) -> None:
        """Told of everything that is about to be sent on, in the connection's thread."""

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            try:
                engine.connect(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, engine}
            both = threading.Barrier(2)
            for source, sink in ((client, engine), (engine, client)):
                threading.Thread(target=self._pump, args=(source, sink, both), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, both: threading.Barrier) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self.passing(chunk)
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(60)
        with self._lock:
            self._open -= {source, sink}
        source.close()
