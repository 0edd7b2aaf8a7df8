"""Creates on the local runtime: POST latency, time to Running over the bare cost, creates a second."""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import shutil
import statistics
import subprocess
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog
from bench.harness import CLOSED, CREATE, Server, scratch, shoal, table

from shoal.config.settings import Settings, StoreSettings
from shoal.models.plan import WorkloadPlan
from shoal_local.config import LocalSettings
from shoal_local.keeper import Keeper

BODY = json.dumps(CREATE)
FLOOR = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--ipc", "--uts", "--fork", "--mount-proc"]
"""The same kinds of namespace, entered by hand, without a root of its own."""
MEMORY = Path("/dev/shm")
"""A tmpfs: what starts cost without the disk. A journal-less ext4 rescans recently freed inodes after many deletes."""
PAUSE = 0.02
"""Seconds between two starts: back to back, every start finds caches warm that it would not find in use."""


def floor(runs: int = 60) -> float:
    """Median milliseconds until a process in namespaces of its own, and nothing else, has said a word."""
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        process = subprocess.Popen([*FLOOR, "sh", "-c", "echo up; exec sleep 60"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        times.append(time.perf_counter() - begun)
        process.kill()
        process.wait()
        process.stdout.close()
        time.sleep(PAUSE)
    return statistics.median(times) * 1000


def bare(home: Path, isolation: Literal["bubblewrap", "unshare"], runs: int = 60) -> float:
    """Median milliseconds of the local runtime's own start, called in a plain process: the same isolated process, with
    its mounts and control groups, and no server, no store and no HTTP around it.
    """
    settings = Settings(store=StoreSettings(path=str(home / "bare.db")))
    keeper = Keeper(settings, LocalSettings(isolation=isolation))
    keeper.open()
    assert keeper.maker is not None
    times = []
    for _ in range(runs):
        plan = WorkloadPlan(
            id=str(uuid.uuid4()),
            runtime="local",
            created_at=datetime.now(UTC),
            command=CREATE["entrypoint"],
            image="host",
        )
        box = keeper.state.box(plan.id)
        begun = time.perf_counter()
        keeper.maker.make(box, plan, lambda *_: None)
        times.append(time.perf_counter() - begun)
        keeper.remove(box)
        time.sleep(PAUSE)
    keeper.close()
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


def measured(isolation: Literal["bubblewrap", "unshare"], place: Path | None = None) -> list[tuple[str, str, str]]:
    """The rows of one way to isolate, with state on disk or at ``place``."""
    with scratch(place) as home:
        alone = bare(home, isolation)
    with scratch(place) as home, shoal(home, f'{CLOSED}isolation = "{isolation}"\n') as server:
        one_by_one(server, 10)
        post, total = one_by_one(server)
        rate, busy_post = side_by_side(server)
    name = f"{isolation}, state {'on disk' if place is None else f'in {place}'}"
    return [
        (f"{name}: the runtime's own start, no server, median", f"{alone:.1f} ms", ""),
        (f"{name}: create to Running, one at a time, median", f"{total:.1f} ms", f"≤ {alone + 15:.1f} ms (bare + 15)"),
        (f"{name}: POST answered, one at a time, median", f"{post:.2f} ms", "≤ 5 ms"),
        (f"{name}: creates a second to Running, 400 by 8 clients", f"{rate:.0f}/s", "≥ 100/s"),
        (f"{name}: POST answered meanwhile, median", f"{busy_post:.1f} ms", ""),
    ]


def with_a_way_out() -> list[tuple[str, str, str]]:
    """What the internet costs: pasta, one process for each sandbox."""
    with scratch(MEMORY if MEMORY.is_dir() else None) as home, shoal(home, '[local]\nnetwork = "internet"\n') as server:
        one_by_one(server, 10)
        _, total = one_by_one(server)
        rate, _ = side_by_side(server, 200)
    return [
        ("with a way out to the internet: create to Running, one at a time, median", f"{total:.1f} ms", ""),
        ("with a way out to the internet: creates a second to Running, 200 by 8 clients", f"{rate:.0f}/s", ""),
    ]


def main(argv: list[str] | None = None) -> str:
    argparse.ArgumentParser(description=__doc__).parse_known_args(argv)
    logging.disable(logging.INFO)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    rows = [("unshare(1) alone, no root of its own, median", f"{floor():.1f} ms", "")]
    for isolation in ("unshare", "bubblewrap") if shutil.which("bwrap") else ("unshare",):
        rows += measured(isolation)
        if MEMORY.is_dir():
            rows += measured(isolation, MEMORY)
    if shutil.which("pasta"):
        rows += with_a_way_out()
    return table("Creates on the local runtime", rows)


if __name__ == "__main__":
    print(main())
