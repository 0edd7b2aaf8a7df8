"""Length-prefixed JSON between the driver and the agent, apart from the descriptors of output."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from typing import Any, Dict, Optional

MAX_FRAME = 48 * 1024 * 1024
"""Bytes of one message. A larger one is replaced by its plain text."""
Message = Dict[str, Any]


class Channel:
    """One end of a socket pair. `running` is set while code runs: only then does the agent answer a display."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.running = False
        os.register_at_fork(after_in_child=self._close)

    def _close(self) -> None:
        self.lock = threading.RLock()
        self.sock.close()

    @property
    def mine(self) -> bool:
        """Whether this process is the driver and no fork of it."""
        return os.getpid() == self.pid

    def receive(self) -> Optional[Message]:
        """The next message, or None at the end."""
        head = self._exactly(4)
        body = self._exactly(struct.unpack(">I", head)[0]) if head else None
        return json.loads(body) if body else None

    def _exactly(self, size: int) -> Optional[bytes]:
        parts = []
        while size:
            part = self.sock.recv(min(size, 1 << 20))
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send(self, message: Message) -> None:
        """Sends `message`. Does nothing in a forked child."""
        if not self.mine:
            return
        data = json.dumps(message, default=str).encode()
        if len(data) > MAX_FRAME:
            data = json.dumps(_shortened(message)).encode()
        with self.lock:
            self.sock.sendall(struct.pack(">I", len(data)) + data)

    def show(self, message: Message) -> None:
        """Sends `message` and, while code runs, waits until the agent took it: what is printed later comes later."""
        if threading.current_thread() is not threading.main_thread() or not self.running:
            self.send(message)
        elif self.mine:
            with _Deferred():
                self.send(dict(message, wait=True))
                self.receive()


class _Deferred:
    """Holds an interrupt back, since one within a message would break the framing."""

    def __enter__(self) -> None:
        self.came = False
        self.handler = signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.came = True

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self.handler)
        if self.came:
            signal.raise_signal(signal.SIGINT)


def _shortened(message: Message) -> Message:
    data = message.get("data") or {}
    text = str(data.get("text/plain", ""))[:65536]
    return dict(message, data={"text/plain": f"{text} (the rest exceeds {MAX_FRAME} bytes)"})
