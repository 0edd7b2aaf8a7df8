"""Memory and expiry with 10,000 sandbox records."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.harness import Server, scratch, shoal, table
from bench.opensandbox_server import opensandbox_server
from bench.reads import MEMORY, MEMORY_ENV, fill

COUNT = 10_000
WINDOW = 20.0
"""Seconds over which the expiries of the sample are spread."""


def idle(extra: str = "") -> float:
    """Resident MB of a server that has no sandbox, after one request of each kind."""
    with scratch() as home, shoal(home, extra) as server:
        server.call("GET", "/v1/sandboxes")
        time.sleep(1)
        return server.rss_mb()


def idle_memory_of_theirs(venv: Path) -> float:
    with scratch() as home, opensandbox_server(venv, home) as server:
        server.call("GET", "/v1/sandboxes")
        time.sleep(1)
        return server.rss_mb()


def lateness(server: Server, ids: list[str], log: Path, sample: int = 2000) -> tuple[float, float]:
    """Median and 99th percentile, in ms, from ``expiresAt`` to the expiry's own transition to Stopping in the log."""
    first = datetime.now(UTC) + timedelta(seconds=15)
    wanted = {sandbox: first + timedelta(seconds=WINDOW * index / sample) for index, sandbox in enumerate(ids[:sample])}

    def renew(item: tuple[str, datetime]) -> None:
        server.call("POST", f"/v1/sandboxes/{item[0]}/renew-expiration", {"expiresAt": item[1].isoformat()})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(renew, wanted.items()))
    if datetime.now(UTC) >= first:
        raise RuntimeError("the machine is too slow for this sample: renewals overran the first expiry")
    time.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()) + WINDOW + 5)
    late = []
    for line in log.read_text().splitlines():
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("after") == "Stopping" and event.get("sandbox_id") in wanted:
            fired = datetime.fromisoformat(event["timestamp"])
            late.append((fired - wanted[event["sandbox_id"]]).total_seconds() * 1000)
    if len(late) != sample or min(late) < 0:
        raise RuntimeError(f"{len(late)} of {sample} fired, earliest {min(late, default=0):.1f} ms")
    return statistics.median(late), statistics.quantiles(late, n=100)[98]


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opensandbox-server", type=Path)
    options, _ = parser.parse_known_args(argv)
    rows = [("resident memory, no sandbox", f"{idle():.0f} MB", "≤ 70 MB")]
    if options.opensandbox_server:
        theirs = idle_memory_of_theirs(options.opensandbox_server)
        rows.append(("opensandbox-server: resident memory, no sandbox", f"{theirs:.0f} MB", ""))
    with scratch() as home:
        with shoal(home, MEMORY, env=MEMORY_ENV) as server:
            ids = fill(server, COUNT, threads=16)
            rows.append(("resident memory, 10,000 records", f"{server.rss_mb():.0f} MB", "≤ 250 MB"))
            middle, late = lateness(server, ids, home / "server.log")
        rows += [
            ("expiry fires late, 10,000 armed, median", f"{middle:.1f} ms", ""),
            ("expiry fires late, 10,000 armed, 99th percentile", f"{late:.1f} ms", "≤ 250 ms"),
        ]
    return table("Records, memory and expiry", rows)


if __name__ == "__main__":
    print(main())
