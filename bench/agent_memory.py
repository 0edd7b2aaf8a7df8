"""What agents and long streams cost in memory, and how fast long streams are."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from bench import sdk
from bench.harness import GIGABYTE, Server, free_port
from bench.sdk import Place
from opensandbox import SandboxSync

Rows = list[tuple[str, str, str]]
OUTPUT = 100_000_000
NGINX = """\
user root; master_process off; daemon off; pid /tmp/nginx.pid; error_log stderr; events {{ }}
http {{ access_log off; sendfile on; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server {{ listen 127.0.0.1:{port}; root /tmp/www; }} }}
"""


def agents() -> dict[int, tuple[float, float]]:
    """Every agent on this machine: its resident memory and what is its own, in MB."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"/execd") for word in words[:4]):
                rollup = (folder / "smaps_rollup").read_text()
                own = sum(map(int, re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", rollup, re.MULTILINE)))
                resident = int(re.search(r"^Rss:\s+(\d+)", rollup, re.MULTILINE).group(1))  # type: ignore[union-attr]
                found[int(folder.name)] = (resident / 1024, own / 1024)
        except OSError:
            continue  # it has ended
    return found


def idle(place: Place, wanted: str) -> Rows:
    """Of an agent that has run one command and does nothing."""
    with sdk.sandbox(place) as made:
        made.commands.run("true")
        time.sleep(1)
        ((resident, own),) = agents().values()
    figure = f"{resident:.1f} MB resident, {own:.1f} MB its own"
    return [(f"an idle agent, {place.name}", figure, wanted)]


class Endpoint:
    """A port of a sandbox through the server's proxy, without the SDK: nothing of the client's is measured."""

    def __init__(self, server: Server, sandbox: str, port: int) -> None:
        answer = server.call("GET", f"/v1/sandboxes/{sandbox}/endpoints/{port}?use_server_proxy=true")
        self.url = "http://" + answer["endpoint"].removeprefix("http://")
        self.headers: dict[str, str] = answer.get("headers") or {}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url + "/", headers=self.headers, timeout=600)


def drained(client: httpx.Client, method: str, path: str, **options: object) -> tuple[int, float]:
    """Bytes of an answer, and the seconds that they took."""
    begun, size = time.perf_counter(), 0
    with client.stream(method, path, **options) as answer:  # type: ignore[arg-type]
        answer.raise_for_status()
        for chunk in answer.iter_raw(1 << 20):
            size += len(chunk)
    return size, time.perf_counter() - begun


def pace_of_the_proxy(server: Server, made: SandboxSync) -> float:
    """MB a second of 1 GB out of nginx in the same sandbox."""
    port = free_port()
    configuration = NGINX.format(port=port)
    made.commands.run(f"mkdir -p /tmp/www; truncate -s {GIGABYTE} /tmp/www/file; cat >/tmp/n <<'N'\n{configuration}N")
    made.commands.run("nginx -c /tmp/n >/dev/null 2>&1 &")
    endpoint = Endpoint(server, made.id, port)
    with endpoint.client() as client:
        deadline = time.monotonic() + 30
        while client.head("").status_code >= 500:
            if time.monotonic() > deadline:
                raise RuntimeError("nginx does not answer")
            time.sleep(0.05)
        size, took = drained(client, "GET", "file")
    return size / 1e6 / took


def upload(client: httpx.Client) -> float:
    """MB a second of 1 GB into a file."""

    def body() -> object:
        block = bytes(1 << 20)
        yield b'--b\r\nContent-Disposition: form-data; name="metadata"; filename="m"\r\n\r\n{"path":"/tmp/up"}\r\n'
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(GIGABYTE >> 20):
            yield block
        yield b"\r\n--b--\r\n"

    begun = time.perf_counter()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    client.post("files/upload", content=body(), headers=headers).raise_for_status()  # type: ignore[arg-type]
    return GIGABYTE / 1e6 / (time.perf_counter() - begun)


def streams(place: Place) -> Rows:
    """100 MB of output, 1 GB up and down: their pace beside the proxy's own, and what grows meanwhile."""
    with sdk.sandbox(place) as made:
        pace = pace_of_the_proxy(place.server, made)
        with Endpoint(place.server, made.id, 44772).client() as client:
            client.get("ping").raise_for_status()
            ((agent, _),), server = agents().values(), place.server.rss_mb()
            command = f"head -c {OUTPUT} /dev/zero | tr '\\0' x | fold -w 1000"
            _, took = drained(client, "POST", "command", json={"command": command})
            up = upload(client)
            size, down_took = drained(client, "GET", "files/download", params={"path": "/tmp/up"})
            if size != GIGABYTE:
                raise RuntimeError(f"{size} bytes of 1 GB")
            ((agent_after, _),), server_after = agents().values(), place.server.rss_mb()
    down, half = size / 1e6 / down_took, f"≥ {pace / 2:,.0f} MB/s (half of the proxy's)"
    growth = f"{agent_after - agent:+.1f} MB, {server_after - server:+.1f} MB"
    return [
        ("1 GB out of nginx in a sandbox, through the proxy", f"{pace:,.0f} MB/s", ""),
        ("1 GB file down, through the agent", f"{down:,.0f} MB/s", half),
        ("1 GB file up, through the agent", f"{up:,.0f} MB/s", half),
        ("100 MB of a command's output", f"{OUTPUT / 1e6 / took:,.0f} MB/s", ""),
        ("growth of agent and server over all of them", growth, "≤ 20 MB"),
    ]


def thousand(place: Place, count: int = 1000) -> Rows:
    """An idle server before and after many agents."""

    def some(number: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: sdk.first_byte(place), range(number)))
        time.sleep(2)

    some(100)
    before = place.server.rss_mb()
    some(count)
    growth, left = place.server.rss_mb() - before, len(agents())
    figure = f"{growth:+.1f} MB, {left} agents left"
    return [(f"an idle server after {count:,} agents: growth", figure, "none, 0 left")]


def measured(place: Place) -> Rows:
    """All of it."""
    return idle(place, "≤ 8 MB its own") + streams(place) + thousand(place)
