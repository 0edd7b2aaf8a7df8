"""A server that answers what the SDK asks of a create and one command at once, from memory: what is left is the SDK.

Run as a program it prints its port. `instant` runs it so.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.harness import Server

SANDBOX = {
    "id": "3f0c1c64-7a0d-4b52-8a0f-2f4a2f0c5d11",
    "status": {"state": "Pending", "reason": "SANDBOX_CREATED", "message": "The sandbox is being created."},
    "entrypoint": ["tail", "-f", "/dev/null"],
    "createdAt": "2026-11-29T12:00:00Z",
    "expiresAt": "2026-11-29T13:00:00Z",
}
EVENTS = [
    {"type": "init", "text": "3f0c1c64", "timestamp": 1},
    {"type": "stdout", "text": "up", "timestamp": 1},
    {"type": "execution_complete", "execution_time": 1, "timestamp": 1},
]


class Answers(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._port = transport.get_extra_info("sockname")[1]
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            size = sum(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
            if not end or len(rest) < size:
                return
            self._data = rest[size:]
            method, path = head.split(b" ", 2)[:2]
            self._transport.write(self._answer(method.decode(), path.decode()))

    def _answer(self, method: str, path: str) -> bytes:
        if "/endpoints/" in path:
            port = path.partition("?")[0].rpartition("/")[2]
            endpoint = f"127.0.0.1:{self._port}/v1/sandboxes/{SANDBOX['id']}/proxy/{port}"
            return _http("200 OK", json.dumps({"endpoint": endpoint, "headers": {}}))
        if path.endswith("/command"):
            return _http("200 OK", "".join(f"{json.dumps(event)}\n\n" for event in EVENTS), "text/event-stream")
        if path.endswith("/ping"):
            return _http("200 OK", "")
        if method == "DELETE" or path.endswith("/metrics/events"):
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        return _http("202 Accepted" if method == "POST" else "200 OK", json.dumps(SANDBOX))


def _http(status: str, body: str, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def serve() -> None:
    """Print the port, then answer until killed."""
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@contextmanager
def instant() -> Iterator[Server]:
    """Such a server, in a process of its own."""
    with subprocess.Popen([sys.executable, "-m", "bench.instant"], stdout=subprocess.PIPE) as process:
        try:
            port = int((process.stdout or sys.stdin.buffer).readline())
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run(serve())
