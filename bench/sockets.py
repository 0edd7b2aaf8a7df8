"""WebSockets through shoal beside a direct connection, nginx and opensandbox-server: echoes per second, idle ones.

Backend and clients are as lean as Python allows: they parse what this benchmark sends and nothing else, on uvloop, each
in a process of its own. Every client waits for its echo before it sends again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import uvloop
from bench.harness import CREATE, HERE, SHARED, Server, free_port, scratch, shoal, table
from bench.opensandbox_server import opensandbox_server, populated

CLIENTS, SECONDS, ROUNDS = 50, 3.0, 3
IDLE = 1000
KEY, GUID = b"AAAAAAAAAAAAAAAAAAAAAA==", b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MASK = b"\x12\x34\x56\x78"
TEXT = b"a message of thirty-two bytes..!"
SENT = b"\x81" + bytes([0x80 | len(TEXT)]) + MASK + bytes(a ^ b for a, b in zip(TEXT, MASK * 8, strict=True))
ANSWER = b"\x81" + bytes([len(TEXT)]) + TEXT
FRONT = """\
worker_processes 1; daemon off; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 8192; }}
http {{ access_log off; client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1;
proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }} }}
"""


class Echo(asyncio.Protocol):
    """The backend: answers the handshake, sends back each short frame, pongs for pings."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.kept = b""
        self.open = False

    def data_received(self, data: bytes) -> None:
        data = self.kept + data
        if not self.open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.kept = head
                return
            self.open = True
            key = next(
                line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
            )
            accept = base64.b64encode(hashlib.sha1(key.strip() + GUID, usedforsecurity=False).digest())
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
            )
        while len(data) >= 6 and len(data) >= 6 + (data[1] & 127):
            size, opcode = data[1] & 127, data[0] & 15
            mask = int.from_bytes((data[2:6] * 32)[:size], "big")
            payload = (int.from_bytes(data[6 : 6 + size], "big") ^ mask).to_bytes(size, "big")
            if opcode in (1, 8, 9):
                self.transport.write(bytes([0x8A if opcode == 9 else data[0], size]) + payload)
            data = data[6 + size :]
        self.kept = data


class Client(asyncio.Protocol):
    """One WebSocket that counts the echoes it got; while ``going``, each is the moment to send again."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.kept = b""
        self.count = 0
        self.going = False
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.echoed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        data = self.kept + data
        if not self.open.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.kept = head
            elif head.startswith(b"HTTP/1.1 101 "):
                self.open.set_result(None)
            else:
                self.open.set_exception(RuntimeError(head.decode()))
        while len(data) >= 2 and len(data) >= 2 + data[1]:
            frame, data = data[: 2 + data[1]], data[2 + data[1] :]
            if frame[0] == 0x89:
                self.transport.write(b"\x8a" + bytes([0x80 | frame[1]]) + bytes(4) + frame[2:])
            elif frame == ANSWER:
                self.count += 1
                if self.going:
                    self.transport.write(SENT)
                elif not self.echoed.done():
                    self.echoed.set_result(None)
            else:
                raise RuntimeError(f"unexpected: {frame!r}")
        self.kept = data


async def connected(url: str, count: int) -> list[Client]:
    """This many WebSockets to ``host:port/path``."""
    host, _, path = url.partition("/")
    address, _, port = host.partition(":")
    request = (
        f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY.decode()}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(lambda: Client(request), address, int(port))
        await asyncio.wait_for(client.open, 30)
        clients.append(client)
    return clients


async def echoes(url: str) -> float:
    """Echoes a second over all clients."""
    clients = await connected(url, CLIENTS)
    for client in clients:
        client.going = True
        client.transport.write(SENT)
    await asyncio.sleep(0.5)
    loop = asyncio.get_running_loop()
    before, began = sum(client.count for client in clients), loop.time()
    await asyncio.sleep(SECONDS)
    rate = (sum(client.count for client in clients) - before) / (loop.time() - began)
    if min(client.count for client in clients) == 0:
        raise RuntimeError("a client got no echo")
    for client in clients:
        client.transport.abort()
    return rate


async def idle(url: str, server: Server) -> tuple[float, float]:
    """Memory of the server for each of many idle WebSockets in KB, and seconds for one echo on each of them."""
    for client in await connected(url, 20):  # what the first ones bring in is not theirs
        client.transport.abort()
    await asyncio.sleep(1)
    before = server.rss_mb()
    clients = await connected(url, IDLE)
    await asyncio.sleep(25)  # past one round of pings
    each = (server.rss_mb() - before) * 1024 / IDLE
    loop = asyncio.get_running_loop()
    began = loop.time()
    for client in clients:
        client.transport.write(SENT)
    await asyncio.wait_for(asyncio.gather(*(client.echoed for client in clients)), 60)
    taken = loop.time() - began
    for client in clients:
        client.transport.abort()
    return each, taken


async def serve(port: int) -> None:
    """The process behind the proxies."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A process, once it listens."""
    process = subprocess.Popen(command, cwd=HERE.parent)
    try:
        asyncio.run(listening(port))
        yield
    finally:
        process.terminate()
        process.wait(30)


async def listening(port: int) -> None:
    """Return once somebody does."""
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise RuntimeError(f"nobody listens on port {port}")


@contextmanager
def nginx(home: Path, behind: int) -> Iterator[str]:
    """nginx as the proxy; host and port."""
    port = free_port()
    config = home / "front.conf"
    config.write_text(FRONT.format(home=home, port=port, behind=behind))
    with running(["nginx", "-c", str(config), "-p", str(home)], port):
        yield f"127.0.0.1:{port}"


def of_theirs(venv: Path, port: int) -> float:
    """Its echoes a second, before the same backend."""
    with scratch() as home, opensandbox_server(venv, home, network="host") as server, populated(server, 1) as ids:
        return rate(f"{server.base.removeprefix('http://')}/v1/sandboxes/{ids[0]}/proxy/{port}/")


def rate(url: str) -> float:
    """The median of several rounds."""
    return statistics.median(uvloop.run(echoes(url)) for _ in range(ROUNDS))


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--opensandbox-server", type=Path)
    args, _ = parser.parse_known_args(argv)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    behind = free_port()
    with (
        scratch() as home,
        running([sys.executable, "-m", "bench.sockets", "--serve", str(behind)], behind),
        shoal(home, f'[runtime]\ntype = "local"\n{SHARED}', env={"OPENSANDBOX_INSECURE_SERVER": "YES"}) as server,
        nginx(home, behind) as front,
    ):
        made = server.call("POST", "/v1/sandboxes", CREATE)["id"]
        server.call("GET", f"/v1/sandboxes/{made}?wait=Running&timeout=60")
        through = f"{server.base.removeprefix('http://')}/v1/sandboxes/{made}/proxy/{behind}/"
        rows = [
            (f"echoes over {CLIENTS} WebSockets, no proxy", f"{rate(f'127.0.0.1:{behind}/'):,.0f}/s", ""),
            (f"echoes over {CLIENTS} WebSockets, nginx, one worker", f"{rate(f'{front}/'):,.0f}/s", ""),
            (f"echoes over {CLIENTS} WebSockets, shoal", f"{rate(through):,.0f}/s", "≥ 10,000/s"),
        ]
        if args.opensandbox_server:
            theirs = of_theirs(args.opensandbox_server, behind)
            rows.append((f"echoes over {CLIENTS} WebSockets, opensandbox-server", f"{theirs:,.0f}/s", ""))
        each, taken = uvloop.run(idle(through, server))
        rows += [
            (f"{IDLE:,} idle WebSockets held by shoal, memory for each", f"{each:.1f} KB", f"{IDLE:,} held"),
            ("one echo on each of them", f"{taken * 1e3:.0f} ms for all", "all answer"),
        ]
        server.call("DELETE", f"/v1/sandboxes/{made}")
    return table("WebSockets", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(int(sys.argv[2])))
    else:
        print(main(sys.argv[1:]))
