"""The HTTP proxy beside nginx and opensandbox-server: small answers, latency at a fixed rate, 1 GB each way.

The backend, nginx with a constant and a Python sink for uploads, runs in a sandbox of shoal's local runtime. nginx as
the proxy has one worker and keeps its upstream connections; opensandbox-server, in Docker's host mode, reaches the same
backend.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.harness import CLOSED, CREATE, GIGABYTE, SHARED, Server, free_port, median_wrk, scratch, shoal, table
from bench.opensandbox_server import opensandbox_server, populated

CONNECTIONS, RATE, SECONDS = 32, 1000, 4
"""Of the latencies: connections, requests a second over all of them, and how long one round lasts."""
ROUNDS = 5
BACKEND = """\
user root; master_process off; daemon off; pid /tmp/nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; client_body_temp_path /tmp/body;
proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
server {{ listen 127.0.0.1:{port}; location = / {{ return 200 "hello\\n"; }} location /big {{ root /tmp/www; }} }} }}
"""
FRONT = """\
worker_processes 1; daemon off; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_max_body_size 0; client_body_temp_path {home}/body;
proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
upstream small {{ server 127.0.0.1:{small}; keepalive 64; keepalive_requests 100000000; }}
upstream sink {{ server 127.0.0.1:{sink}; }}
server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
proxy_request_buffering off;
location / {{ proxy_pass http://small; }} location /sink {{ proxy_pass http://sink; }} }} }}
"""
SINK = """\
import socket, sys, threading
def serve(peer):
    with peer:
        head = b""
        while b"\\r\\n\\r\\n" not in head: head += peer.recv(65536)
        head, _, rest = head.partition(b"\\r\\n\\r\\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\\r\\n")[1:])
        if b"expect" in lines: peer.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n")
        left, buffer = int(lines[b"content-length"]) - len(rest), bytearray(1 << 20)
        while left > 0: left -= peer.recv_into(buffer)
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@dataclass
class Backend:
    """The ports of the backend in the sandbox."""

    sandbox: str
    small: int
    sink: int


def backend(server: Server) -> Backend:
    """Start it in a sandbox; return once its small answers come through the proxy."""
    small, sink = free_port(), free_port()
    script = (
        f"mkdir -p /tmp/www/big; truncate -s {GIGABYTE} /tmp/www/big/file; cat >/tmp/sink.py <<'S'\n{SINK}S\n"
        f"cat >/tmp/nginx.conf <<'N'\n{BACKEND.format(port=small)}N\n"
        f"python3 /tmp/sink.py {sink} & exec nginx -c /tmp/nginx.conf"
    )
    made = server.call("POST", "/v1/sandboxes", CREATE | {"entrypoint": ["sh", "-c", script]})["id"]
    server.call("GET", f"/v1/sandboxes/{made}?wait=Running&timeout=60")
    await_http(f"{server.base}/v1/sandboxes/{made}/proxy/{small}/")
    return Backend(made, small, sink)


@contextmanager
def nginx(home: Path, behind: Backend) -> Iterator[str]:
    """nginx as the proxy; its base URL."""
    port = free_port()
    config = home / "front.conf"
    config.write_text(FRONT.format(home=home, port=port, small=behind.small, sink=behind.sink))
    process = subprocess.Popen(["nginx", "-c", str(config), "-p", str(home)])
    try:
        await_http(f"http://127.0.0.1:{port}/")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def await_http(url: str) -> None:
    """Return once it answers."""
    for _ in range(200):
        if subprocess.run(["curl", "-sf", "-o", "/dev/null", url], check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer")


async def latencies(url: str) -> list[float]:
    """Seconds from the moment that each request was due to the end of its answer: a late start counts."""
    host, _, path = url.removeprefix("http://").partition("/")
    request = f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    taken: list[float] = []
    interval = CONNECTIONS / RATE
    begin = time.perf_counter() + 0.2

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        for turn in range(RATE * SECONDS // CONNECTIONS):
            due = begin + turn * interval + number * interval / CONNECTIONS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(6)
            taken.append(time.perf_counter() - due)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
        writer.close()

    await asyncio.gather(*(one(number) for number in range(CONNECTIONS)))
    return taken


def at_a_fixed_rate(urls: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Median and 99th percentile in ms; rounds are taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in urls}
    for _ in range(ROUNDS):
        for name, url in urls.items():
            taken[name] += asyncio.run(latencies(url))
    return {
        name: (statistics.median(all_) * 1e3, statistics.quantiles(all_, n=100)[98] * 1e3)
        for name, all_ in taken.items()
    }


def megabytes(*curl: str) -> float:
    """MB a second of one transfer, as curl counts them; the median of three."""
    found = []
    for _ in range(3):
        command = ["curl", "-sf", "-o", "/dev/null", "-H", "Expect:", *curl]
        began = time.perf_counter()
        subprocess.run(command, check=True)
        found.append(GIGABYTE / 1e6 / (time.perf_counter() - began))
    return statistics.median(found)


def bodies(server: Server, through: dict[str, tuple[str, str]], home: Path) -> list[tuple[str, str, str]]:
    """1 GB down and up through each, and what that does to the server's memory."""
    source = home / "gigabyte"
    with source.open("wb") as file:
        file.truncate(GIGABYTE)
    before = server.rss_mb()
    down = {name: megabytes(base + "/big/file") for name, (base, _) in through.items()}
    up = {name: megabytes("-T", str(source), sink) for name, (_, sink) in through.items()}
    growth = server.rss_mb() - before
    rows = []
    for way, found in (("down", down), ("up", up)):
        for name, speed in found.items():
            wanted = f"≥ {0.5 * found['nginx']:,.0f} MB/s (half of nginx's)" if name == "shoal" else ""
            rows.append((f"1 GB {way}, {name}", f"{speed:,.0f} MB/s", wanted))
    return [*rows, ("growth of shoal's memory over all of them", f"{growth:+.1f} MB", "≤ 20 MB")]


def small(direct: str, ours: str, theirs: str, compared: float | None) -> list[tuple[str, str, str]]:
    """Requests a second at saturation."""
    plain, front, mine = (median_wrk(url, connections=CONNECTIONS) for url in (direct, theirs, ours))
    rows = [
        ("small answers, no proxy", f"{plain:,.0f}/s", ""),
        ("small answers, nginx, one worker", f"{front:,.0f}/s", ""),
    ]
    if compared is not None:
        rows.append(("small answers, opensandbox-server", f"{compared:,.0f}/s", ""))
    wanted = f"≥ {0.25 * front:,.0f}/s (a quarter of nginx's)"
    if compared is not None:
        wanted += f", ≥ {15 * compared:,.0f}/s (15 times opensandbox-server's)"
    return [*rows, ("small answers, shoal", f"{mine:,.0f}/s", wanted)]


def own_network() -> float:
    """Requests a second to a sandbox with a network of its own."""
    with scratch() as home, shoal(home, CLOSED) as server:
        behind = backend(server)
        rate = median_wrk(f"{server.base}/v1/sandboxes/{behind.sandbox}/proxy/{behind.small}/", connections=CONNECTIONS)
        server.call("DELETE", f"/v1/sandboxes/{behind.sandbox}")
        return rate


def of_theirs(venv: Path, port: int) -> float:
    """Its requests a second to the same backend."""
    with scratch() as home, opensandbox_server(venv, home, network="host") as server, populated(server, 1) as ids:
        return median_wrk(f"{server.base}/v1/sandboxes/{ids[0]}/proxy/{port}/", connections=CONNECTIONS)


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--opensandbox-server", type=Path)
    args, _ = parser.parse_known_args(argv)
    with scratch() as home, shoal(home, SHARED) as server:
        behind = backend(server)
        proxied = f"{server.base}/v1/sandboxes/{behind.sandbox}/proxy"
        direct = f"http://127.0.0.1:{behind.small}"
        ours = f"{proxied}/{behind.small}"
        compared = of_theirs(args.opensandbox_server, behind.small) if args.opensandbox_server else None
        with nginx(home, behind) as front:
            rows = small(f"{direct}/", f"{ours}/", f"{front}/", compared)
            rows.append(("small answers, shoal, from a network of the sandbox's own", f"{own_network():,.0f}/s", ""))
            times = at_a_fixed_rate({"no proxy": f"{direct}/", "nginx": f"{front}/", "shoal": f"{ours}/"})
            plain = times["no proxy"]
            for name, (median, late) in times.items():
                wanted = f"≤ {plain[0] + 1:.2f} ms, ≤ {plain[1] + 3:.2f} ms" if name == "shoal" else ""
                rows.append((f"{RATE}/s, {name}: median, 99th percentile", f"{median:.2f} ms, {late:.2f} ms", wanted))
            through = {
                "no proxy": (direct, f"http://127.0.0.1:{behind.sink}/sink"),
                "nginx": (front, f"{front}/sink"),
                "shoal": (ours, f"{proxied}/{behind.sink}/sink"),
            }
            rows += bodies(server, through, home)
        server.call("DELETE", f"/v1/sandboxes/{behind.sandbox}")
    return table(f"The HTTP proxy, {CONNECTIONS} connections (wrk: median of 3 runs of 4 s)", rows)


if __name__ == "__main__":
    print(main())
