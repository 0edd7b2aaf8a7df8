"""What renewal on access and the idle timeout add to a proxied request: its latency, and the time of their calls."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

from bench.harness import CREATE, HERE, Server, free_port, scratch, shoal, table
from bench.reads import MEMORY_ENV

from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin import Lifecycle, Transition
from shoal.plugin.interfaces import Access
from shoal_idle.plugin import IdleTimeout
from shoal_renew.plugin import RenewIntent
from shoal_renew.renewer import Renewer
from shoal_renew.subjects import Subjects

CONNECTIONS, REQUESTS, ROUNDS = 8, 2000, 8
WISHES = {"access.renew.extend.seconds": "3600", "access.idle.timeout.seconds": "3600"}
PLUGINS = '[runtime]\ntype = "memory"\n[plugins]\nenabled = ["memory_runtime", "direct_ingress"{}]\n'
OFF = PLUGINS.format("")
ON = PLUGINS.format(', "renew_intent", "idle_timeout"') + "[renew_intent]\nenabled = true\nmin_interval_seconds = 1\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Backend(asyncio.Protocol):
    """Answers each piece of input, which is one request here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)


async def serve(port: int) -> None:
    """The process behind the proxy."""
    server = await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def backend() -> Iterator[int]:
    """The backend's port; in a process of its own."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "bench.renewal", str(port)], cwd=HERE.parent)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


async def latencies(server: Server, path: str, requests: int) -> list[float]:
    """Seconds of each request, over connections that are kept open."""
    host = server.base.removeprefix("http://")
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    taken: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*host.split(":"))
        for _ in range(requests // CONNECTIONS):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
            taken.append(time.perf_counter() - began)
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return taken


def through_the_proxy() -> dict[str, tuple[float, float]]:
    """Median and 99th percentile in ms, of rounds taken in turns so that the machine's moods hit all alike."""
    with ExitStack() as stack:
        port = stack.enter_context(backend())
        places: dict[str, tuple[Server, str]] = {}
        for name, configuration, wishes in (("off", OFF, {}), ("on", ON, WISHES)):
            server = stack.enter_context(shoal(stack.enter_context(scratch()), configuration, env=MEMORY_ENV))
            made = server.call("POST", "/v1/sandboxes", CREATE | {"extensions": wishes})["id"]
            server.call("GET", f"/v1/sandboxes/{made}?wait=Running&timeout=60")
            places[name] = (server, f"/v1/sandboxes/{made}/proxy/{port}/")
        taken: dict[str, list[float]] = {name: [] for name in places}
        for place in places.values():
            asyncio.run(latencies(*place, requests=400))
        for _ in range(ROUNDS):
            for name, place in places.items():
                taken[name] += asyncio.run(latencies(*place, requests=REQUESTS))
    return {
        name: (statistics.median(all_) * 1e3, statistics.quantiles(all_, n=100)[98] * 1e3)
        for name, all_ in taken.items()
    }


async def calls() -> tuple[float, float]:
    """Microseconds that both plugins together take of one request: of a sandbox that asked, and of one that did not."""
    subjects, nobody = Subjects(), cast("Lifecycle", None)
    renew, idle = RenewIntent(nobody, subjects, Renewer(nobody, subjects, 60), 0), IdleTimeout(nobody)
    now = datetime.now(UTC)
    record = SandboxRecord(
        id="asked",
        runtime="x",
        state=State.RUNNING,
        since=now,
        created_at=now,
        entrypoint=["x"],
        expires_at=now + timedelta(hours=1),
        extensions=WISHES,
    )
    for each in (renew, idle):
        each.transition(Transition(record=record, before=State.PENDING, after=State.RUNNING, at=now))

    def once(access: Access) -> None:
        for each in (renew, idle):
            each.accessed(access)
        for each in (renew, idle):
            each.finished(access.sandbox_id)

    def cost(sandbox_id: str) -> float:
        access = Access(sandbox_id, 80, "http", now)
        return min(timeit.repeat(lambda: once(access), number=100_000, repeat=5)) * 10

    return cost("asked"), cost("did not")


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    proxied = through_the_proxy()
    asked, not_asked = asyncio.run(calls())
    rows = [
        (f"proxied request, {name}: median, 99th percentile", f"{median:.3f} ms, {late:.3f} ms", "")
        for name, (median, late) in proxied.items()
    ]
    added = proxied["on"][0] - proxied["off"][0]
    rows += [
        ("added at the median", f"{added * 1e3:+.0f} µs", "not measurable"),
        ("both plugins' part of a request, sandbox asked for both", f"{asked:.2f} µs", ""),
        ("the same, sandbox asked for neither", f"{not_asked:.2f} µs", ""),
    ]
    return table(f"Renewal on access and idle timeout, {CONNECTIONS} connections", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(serve(int(sys.argv[1])))
    else:
        print(main())
