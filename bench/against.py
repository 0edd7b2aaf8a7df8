"""This checkout's server and an earlier one's, in turns: reads, creates, and small answers through the proxy.

``DIR`` is a checkout with a virtual environment of its own (``make setup`` in it).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.creates import one_by_one
from bench.harness import CREATE, SHARED, SHOAL, Server, scratch, shoal, table, wrk
from bench.proxy import backend
from bench.reads import MEMORY, MEMORY_ENV, fill

ROUNDS = 5
TICKS = os.sysconf("SC_CLK_TCK")
Turn = Callable[[Server], float]


@contextmanager
def pair(earlier: Path, old: str, new: str, env: dict[str, str] | None = None) -> Iterator[tuple[Server, Server]]:
    """A server of the earlier checkout and one of this, each with its configuration."""
    with ExitStack() as stack:
        programs = (earlier / ".venv/bin/shoal", old), (SHOAL, new)
        before, now = (
            stack.enter_context(shoal(stack.enter_context(scratch()), extra, env=env, program=program))
            for program, extra in programs
        )
        yield before, now


def compare(servers: tuple[Server, Server], turn: Turn) -> tuple[float, float]:
    """The medians of some rounds, taken in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * ROUNDS):
        for index in (0, 1) if number % 2 else (1, 0):
            found[index].append(turn(servers[index]))
    return statistics.median(found[0]), statistics.median(found[1])


def rates(name: str, servers: tuple[Server, Server], turn: Turn) -> tuple[str, str, str]:
    """A row of requests per second."""
    old, new = compare(servers, turn)
    return name, f"{old:,.0f}/s, {new:,.0f}/s", f"{new / old:.3f}; ≥ 0.95"


def times(name: str, servers: tuple[Server, Server], turn: Turn, wanted: str = "≤ 1.05") -> tuple[str, str, str]:
    """A row of milliseconds."""
    old, new = compare(servers, turn)
    return name, f"{old:.2f} ms, {new:.2f} ms", f"{new / old:.3f}; {wanted}" if wanted.startswith("≤ 1") else wanted


def processor_time(server: Server) -> float:
    """Seconds that the server has computed."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def of_a_create(server: Server, count: int = 200) -> float:
    """Milliseconds of processor time per create, all that follows it included; workloads are in memory."""
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"))
    begun, body = processor_time(server), json.dumps(CREATE)
    for _ in range(count):
        connection.request("POST", "/v1/sandboxes", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
    time.sleep(0.3)
    return (processor_time(server) - begun) / count * 1000


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("earlier", type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    rows = []
    with pair(options.earlier, MEMORY, MEMORY, MEMORY_ENV) as servers:
        ids = {server.base: fill(server, 1000)[0] for server in servers}
        rows.append(rates("GET by id", servers, lambda it: wrk(f"{it.base}/v1/sandboxes/{ids[it.base]}", seconds=2)))
        rows.append(rates("list of 20", servers, lambda it: wrk(f"{it.base}/v1/sandboxes?pageSize=20", seconds=2)))
        rows.append(times("processor time of a create", servers, of_a_create))
    with pair(options.earlier, "", '[local]\nnetwork = "none"\n') as servers:
        rows.append(
            times("local create to Running", servers, lambda it: one_by_one(it, 20)[1], "≤ 10 ms more, for a network")
        )
    with pair(options.earlier, "", SHARED) as servers:
        behind = {server.base: backend(server) for server in servers}

        def small(it: Server) -> float:
            where = behind[it.base]
            return wrk(f"{it.base}/v1/sandboxes/{where.sandbox}/proxy/{where.small}/", seconds=2)

        rows.append(rates("small answers through the proxy", servers, small))
        for server in servers:
            server.call("DELETE", f"/v1/sandboxes/{behind[server.base].sandbox}")
    return table("An earlier commit and this one, medians of 10 rounds in turns", rows)


if __name__ == "__main__":
    print(main())
