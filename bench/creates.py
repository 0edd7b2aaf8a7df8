"""Creates on the local runtime: POST latency, time to Running over the bare cost, creates a second."""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from bench.harness import CREATE, Server, scratch, shoal, table

BODY = json.dumps(CREATE)
BARE = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"]
"""The same namespaces, entered by hand, with one process that says it is there."""


def bare_start(runs: int = 100) -> float:
    """Median milliseconds until a process in namespaces of its own has said a word."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        process = subprocess.Popen([*BARE, "sh", "-c", "echo up; exec sleep 60"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        times.append(time.perf_counter() - begun)
        process.kill()
        process.wait()
        process.stdout.close()
    return statistics.median(times) * 1000


def one_by_one(server: Server, runs: int = 100) -> tuple[float, float]:
    """Median milliseconds of the POST alone, and until Running, one create at a time."""
    connection = http.client.HTTPConnection(server.base.removeprefix("http://"))
    posts, totals = [], []
    for _ in range(runs):
        begun = time.perf_counter()
        connection.request("POST", "/v1/sandboxes", BODY, {"Content-Type": "application/json"})
        made = json.loads(connection.getresponse().read())
        posts.append(time.perf_counter() - begun)
        connection.request("GET", f"/v1/sandboxes/{made['id']}?wait=Running&timeout=30")
        seen = json.loads(connection.getresponse().read())
        totals.append(time.perf_counter() - begun)
        if seen["status"]["state"] != "Running":
            raise RuntimeError(seen)
        connection.request("DELETE", f"/v1/sandboxes/{made['id']}")
        connection.getresponse().read()
    return statistics.median(posts) * 1000, statistics.median(totals) * 1000


def side_by_side(server: Server, count: int = 400, threads: int = 8) -> tuple[float, float]:
    """Creates a second until all of them run, and the median milliseconds of their POSTs."""
    posts: list[float] = []

    def worker(share: int) -> list[str]:
        connection = http.client.HTTPConnection(server.base.removeprefix("http://"))
        made = []
        for _ in range(share):
            begun = time.perf_counter()
            connection.request("POST", "/v1/sandboxes", BODY, {"Content-Type": "application/json"})
            made.append(json.loads(connection.getresponse().read())["id"])
            posts.append(time.perf_counter() - begun)
        for sandbox in made:
            connection.request("GET", f"/v1/sandboxes/{sandbox}?wait=Running&timeout=60")
            state = json.loads(connection.getresponse().read())["status"]["state"]
            if state != "Running":
                raise RuntimeError(f"{sandbox} is {state}")
        return made

    begun = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        ids = [sandbox for made in pool.map(worker, [count // threads] * threads) for sandbox in made]
    took = time.perf_counter() - begun
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda sandbox: server.call("DELETE", f"/v1/sandboxes/{sandbox}"), ids))
    return len(ids) / took, statistics.median(posts) * 1000


def main(argv: list[str] | None = None) -> str:
    argparse.ArgumentParser(description=__doc__).parse_known_args(argv)
    with scratch() as home, shoal(home) as server:
        one_by_one(server, 10)
        before = bare_start()
        post, total = one_by_one(server)
        bare = statistics.mean((before, bare_start()))
        rate, busy_post = side_by_side(server)
    rows = [
        ("bare start of the same isolated process, median", f"{bare:.1f} ms", ""),
        ("create to Running, one at a time, median", f"{total:.1f} ms", f"≤ bare + 15 ms = {bare + 15:.1f} ms"),
        ("POST answered, one at a time, median", f"{post:.2f} ms", "≤ 5 ms"),
        ("creates a second to Running, 400 by 8 clients", f"{rate:.0f}/s", "≥ 100/s"),
        ("POST answered meanwhile, median", f"{busy_post:.1f} ms", ""),
    ]
    return table("Creates on the local runtime", rows)


if __name__ == "__main__":
    print(main())
