"""POSTs through the proxy beside GETs, nginx and opensandbox-server: cost, and losses to a backend that closes early.

A POST must not be sent twice, so shoal dials for each; nginx and opensandbox-server keep connections and lose some.
With ``--against DIR``, a checkout of an earlier commit, GETs are measured beside that one's, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.harness import CREATE, SHARED, Server, free_port, scratch, shoal, table
from bench.opensandbox_server import opensandbox_server, populated
from bench.proxy import CONNECTIONS, Backend, backend, nginx

ROUNDS = 5
SECONDS = 3
ONE_BY_ONE = 400
"""Requests of one round on a single connection."""
DELAYS = (0.0, 0.0005, 0.002, 0.01, 0.05)
"""Seconds from the end of an answer to the close of a connection that was said to be kept."""
HASTY_POSTS = 600
LUA = """\
wrk.method = "POST"
wrk.body = '{"command": "true"}'
wrk.headers["Content-Type"] = "application/json"
"""
HASTY = """\
import socket, sys, threading, time
def serve(peer):
    with peer:
        data = b""
        while b"\\r\\n\\r\\n" not in data:
            piece = peer.recv(65536)
            if not piece: return
            data += piece
        head, _, body = data.partition(b"\\r\\n\\r\\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\\r\\n")[1:])
        left = int(lines.get(b"content-length", 0)) - len(body)
        while left > 0: left -= len(peer.recv(65536))
        peer.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
        time.sleep(float(sys.argv[2]))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
while True: threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

Prefixes = dict[str, Callable[[int], str]]
"""Of each way, the URL of a port without its path."""


def load(url: str, script: Path | None) -> float:
    """Requests a second at saturation; answers that are no 2xx are left out."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--timeout", "60s", url]
    command += ["-s", str(script)] if script else []
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = int(re.search(r"(\d+) requests in", out).group(1))  # type: ignore[union-attr]
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1))  # type: ignore[union-attr]
    return rate * (done - int(bad.group(1) if bad else 0)) / max(1, done)


def request(method: str, url: str) -> tuple[str, bytes]:
    """Where to, and what."""
    host, _, path = url.removeprefix("http://").partition("/")
    body = '{"command": "true"}' if method == "POST" else ""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return host, f"{method} /{path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n{body}".encode()


async def one_by_one(method: str, url: str) -> list[float]:
    """Seconds of each request on one connection."""
    host, asked = request(method, url)
    reader, writer = await asyncio.open_connection(*host.split(":"))
    taken = []
    for _ in range(ONE_BY_ONE):
        began = time.perf_counter()
        writer.write(asked)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"(?i)content-length: (\d+)", head).group(1)))  # type: ignore[union-attr]
        taken.append(time.perf_counter() - began)
    writer.close()
    return taken


def costs(urls: dict[str, str], script: Path) -> list[tuple[str, str, str]]:
    """GET and POST of each way, in turns: rate at saturation, and time of one at a time."""
    rates: dict[tuple[str, str], list[float]] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for name, url in urls.items():
            for method in ("GET", "POST"):
                rates.setdefault((name, method), []).append(load(url, script if method == "POST" else None))
                times.setdefault((name, method), []).extend(asyncio.run(one_by_one(method, url)))
    rows = []
    for (name, method), found in rates.items():
        rate, took = statistics.median(found), statistics.median(times[name, method])
        wanted = ""
        if method == "POST":
            slower = statistics.median(rates[name, "GET"]) / rate
            alone = took / statistics.median(times[name, "GET"])
            wanted = f"{slower:.2f} times a GET's time at saturation, {alone:.2f} alone"
            wanted += "; ≤ 1.5" if name == "shoal" else ""
        rows.append((f"{method}, {name}", f"{rate:,.0f}/s, {took * 1e3:.2f} ms alone", wanted))
    return rows


@contextmanager
def hasty(delay: float) -> Iterator[int]:
    """A backend that closes each connection ``delay`` seconds after its first answer; its port."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", HASTY, str(port), str(delay)])
    try:
        while subprocess.run(["curl", "-sfo", os.devnull, f"http://127.0.0.1:{port}/"], check=False).returncode:
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


async def lost(url: str) -> int:
    """How many of the POSTs, ten at a time, are not answered with 200."""
    host, asked = request("POST", url)

    async def post() -> bool:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        try:
            writer.write(asked)
            return (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        except (OSError, asyncio.IncompleteReadError):
            return False
        finally:
            writer.close()

    answers = [await asyncio.gather(*(post() for _ in range(10))) for _ in range(HASTY_POSTS // 10)]
    return HASTY_POSTS - sum(map(sum, answers))


def losses(home: Path, behind: Backend, ways: Prefixes) -> list[tuple[str, str, str]]:
    """Of each way and delay."""
    found: dict[str, list[int]] = {}
    for delay in DELAYS:
        with hasty(delay) as port, nginx(home, Backend(behind.sandbox, port, behind.sink)) as front:
            here: Prefixes = {"nginx": lambda _, front=front: front, **ways}  # type: ignore[misc]
            for name, prefix in here.items():
                found.setdefault(name, []).append(asyncio.run(lost(f"{prefix(port)}/")))
    said = ", ".join(f"{delay * 1e3:g}" for delay in DELAYS)
    title = f"of {HASTY_POSTS} POSTs lost to a backend that closes {said} ms after an answer"
    return [(f"{title}, {name}", ", ".join(map(str, each)), "0" * (name == "shoal")) for name, each in found.items()]


def earlier(checkout: Path, home: Path, behind: Backend, now: str) -> tuple[str, str, str]:
    """Small answers of this checkout's server and of an earlier one's, in turns."""
    plugins = [str(each) for each in sorted((checkout / "plugins").iterdir()) if each.is_dir()]
    path = os.pathsep.join([str(checkout / "kernel"), *plugins])
    place = home / "earlier"
    place.mkdir()
    with shoal(place, env={"PYTHONPATH": path}) as server:
        made = server.call("POST", "/v1/sandboxes", CREATE)["id"]
        server.call("GET", f"/v1/sandboxes/{made}?wait=Running&timeout=60")
        before = f"{server.base}/v1/sandboxes/{made}/proxy/{behind.small}/"
        rates: dict[str, list[float]] = {before: [], now: []}
        for turn in range(2 * ROUNDS):
            for url in (before, now) if turn % 2 else (now, before):
                rates[url].append(load(url, None))
        server.call("DELETE", f"/v1/sandboxes/{made}")
    old, new = (statistics.median(rates[url]) for url in (before, now))
    return "small answers, earlier commit and this one", f"{old:,.0f}/s, {new:,.0f}/s", f"{new / old:.3f}; ≥ 0.95"


def through(server: Server, sandbox: str) -> Callable[[int], str]:
    """By the proxy of a server."""
    return lambda port: f"{server.base}/v1/sandboxes/{sandbox}/proxy/{port}"


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--opensandbox-server", type=Path)
    parser.add_argument("--against", type=Path, metavar="DIR")
    args, _ = parser.parse_known_args(argv)
    with ExitStack() as stack:
        home = stack.enter_context(scratch())
        script = home / "post.lua"
        script.write_text(LUA)
        server = stack.enter_context(shoal(home, SHARED))
        behind = backend(server)
        ways: Prefixes = {"shoal": through(server, behind.sandbox)}
        if args.opensandbox_server:
            place = stack.enter_context(scratch())
            theirs = stack.enter_context(opensandbox_server(args.opensandbox_server, place, network="host"))
            ways["opensandbox-server"] = through(theirs, stack.enter_context(populated(theirs, 1))[0])
        rows = []
        if args.against:
            rows.append(earlier(args.against, home, behind, f"{ways['shoal'](behind.small)}/"))
        with nginx(home, behind) as front:
            urls = {name: f"{prefix(behind.small)}/" for name, prefix in ways.items()}
            rows += costs({"nginx": f"{front}/", **urls}, script)
        rows += losses(home, behind, ways)
        server.call("DELETE", f"/v1/sandboxes/{behind.sandbox}")
    return table(f"POSTs through the proxy, {CONNECTIONS} connections, medians of {ROUNDS} rounds in turns", rows)


if __name__ == "__main__":
    print(main())
