"""Reads a second: GET by id, and lists of 20, out of few and many sandboxes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness import CLOSED, CREATE, HERE, Server, await_health, free_port, median_wrk, scratch, shoal, table
from bench.opensandbox_server import opensandbox_server, populated

MEMORY = '[runtime]\ntype = "memory"\n[plugins]\nenabled = ["memory_runtime", "direct_ingress"]\n'
MEMORY_ENV = {"PYTHONPATH": str(HERE / "memory_runtime")}


def fill(server: Server, count: int, threads: int = 8) -> list[str]:
    """Create ``count`` sandboxes and wait until the last one runs."""
    with ThreadPoolExecutor(threads) as pool:
        ids = [made["id"] for made in pool.map(lambda _: server.call("POST", "/v1/sandboxes", CREATE), range(count))]
    for sandbox in ids[-threads * 2 :]:
        state = server.call("GET", f"/v1/sandboxes/{sandbox}?wait=Running&timeout=60")["status"]["state"]
        if state != "Running":
            raise RuntimeError(f"{sandbox} is {state}")
    return ids


def bare_falcon() -> float:
    """The ceiling: Falcon on uvicorn answering a constant."""
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            "bench.bare_falcon:app",
            "--port",
            str(port),
            "--no-access-log",
            "--log-level=error",
        ],
        cwd=HERE.parent,
    )
    try:
        await_health(f"http://127.0.0.1:{port}", process)
        return median_wrk(f"http://127.0.0.1:{port}/health")
    finally:
        process.terminate()
        process.wait()


def reads(server: Server, sandbox: str) -> tuple[float, float]:
    """GET by id and list of 20, a second."""
    return (
        median_wrk(f"{server.base}/v1/sandboxes/{sandbox}"),
        median_wrk(f"{server.base}/v1/sandboxes?pageSize=20"),
    )


def local(count: int) -> tuple[float, float]:
    """Out of ``count`` live local sandboxes: real processes."""
    with scratch() as home, shoal(home, CLOSED) as server:
        ids = fill(server, count)
        try:
            return reads(server, ids[0])
        finally:
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda sandbox: server.call("DELETE", f"/v1/sandboxes/{sandbox}"), ids))


def recorded(count: int) -> tuple[float, float]:
    """Out of ``count`` records whose workloads are in memory."""
    with scratch() as home, shoal(home, MEMORY, env=MEMORY_ENV) as server:
        return reads(server, fill(server, count, threads=16)[0])


def of_theirs(venv: Path) -> tuple[float, float]:
    """opensandbox-server's, out of 55 live Docker sandboxes."""
    with scratch() as home, opensandbox_server(venv, home) as server, populated(server, 55) as ids:
        return (
            median_wrk(f"{server.base}/v1/sandboxes/{ids[0]}"),
            median_wrk(f"{server.base}/v1/sandboxes?pageSize=20", connections=4, seconds=10),
        )


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opensandbox-server", type=Path)
    options, _ = parser.parse_known_args(argv)
    rows = [("bare Falcon on uvicorn, a constant", f"{bare_falcon():,.0f}/s", "the ceiling")]
    if options.opensandbox_server:
        get, listed = of_theirs(options.opensandbox_server)
        rows += [
            ("opensandbox-server: GET by id, 55 live", f"{get:,.0f}/s", ""),
            ("opensandbox-server: list of 20 out of 55", f"{listed:,.1f}/s", ""),
        ]
    get, listed = local(1000)
    rows += [
        ("GET by id, 1,000 live local sandboxes", f"{get:,.0f}/s", "≥ 10,000/s"),
        ("list of 20 out of 1,000 live local sandboxes", f"{listed:,.0f}/s", "≥ 3,000/s"),
    ]
    get, listed = recorded(10_000)
    rows += [
        ("GET by id, 10,000 records", f"{get:,.0f}/s", "≥ 10,000/s"),
        ("list of 20 out of 10,000 records", f"{listed:,.0f}/s", "no slower than out of 1,000"),
    ]
    return table("Reads (one server process, wrk with 32 connections, median of 3 runs of 4 s)", rows)


if __name__ == "__main__":
    print(main())
