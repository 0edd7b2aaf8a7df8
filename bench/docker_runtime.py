"""The Docker runtime beside opensandbox-server and bare engine calls: the same image, network, limits and agent.

The bare engine makes the very container that shoal makes (its body is read back from the engine), by one create and one
start call of docker's SDK. The three take turns, so that a busy minute of the machine hits them alike. A server is up
only during its own turn: on one engine, each would take the other's sandboxes for its own.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.harness import Server, median_wrk, scratch, shoal, table
from bench.opensandbox_server import EXECD, IMAGE, opensandbox_server
from docker import APIClient

BODY = {
    "image": {"uri": IMAGE},
    "entrypoint": ["sleep", "86400"],
    "resourceLimits": {"cpu": "500m", "memory": "128Mi"},
    "timeout": 86400,
}
CONFIG = f'[runtime]\ntype = "docker"\nexecd_image = "{EXECD}"\n[docker]\nnetwork_mode = "bridge"\n'
ROUNDS = 3
CREATES, CLIENTS = 40, 16
LIVE, PRESENT = 55, 500
BARE_PORTS = iter(range(61000, 65000))
"""Outside the range that the servers draw from."""

Contestant = Callable[[], AbstractContextManager[Server]]


@dataclass
class Measured:
    """One contestant's figures: seconds of each create, and creates a second of each round."""

    singles: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def single_ms(self) -> float:
        return statistics.median(self.singles) * 1000

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


# --- The servers -----------------------------------------------------------------------------------------------------


@contextmanager
def shoal_on_docker() -> Iterator[Server]:
    with scratch() as home, shoal(home, CONFIG, env={"HOME": str(home)}) as server:
        yield server


def theirs_on_docker(venv: Path) -> Contestant:
    @contextmanager
    def started() -> Iterator[Server]:
        with scratch() as home, opensandbox_server(venv, home) as server:
            yield server

    return started


class Client:
    """One kept connection to a server."""

    def __init__(self, server: Server) -> None:
        self._connection = http.client.HTTPConnection(server.base.removeprefix("http://"), timeout=300)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer; raises for one that is not 2xx."""
        self._connection.request(
            method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
        )
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text) if text else None

    def running(self, body: Any) -> tuple[str, float]:
        """Create and wait until Running: the id, and the seconds it took."""
        begun = time.perf_counter()
        made = self.call("POST", "/v1/sandboxes", body)
        if made["status"]["state"] != "Running":
            made = self.call("GET", f"/v1/sandboxes/{made['id']}?wait=Running&timeout=120")
        took = time.perf_counter() - begun
        if made["status"]["state"] != "Running":
            raise RuntimeError(made)
        return made["id"], took


def delete(server: Server, ids: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda sandbox: server.call("DELETE", f"/v1/sandboxes/{sandbox}"), ids))


# --- Creates ---------------------------------------------------------------------------------------------------------


def server_creates(server: Server, measured: Measured, runs: int) -> None:
    """One at a time, then side by side; the first create of a server is not counted."""
    client = Client(server)
    delete(server, [client.running(BODY)[0]])
    for _ in range(runs):
        made, took = client.running(BODY)
        measured.singles.append(took)
        client.call("DELETE", f"/v1/sandboxes/{made}")

    def share(count: int) -> list[str]:
        own = Client(server)
        return [own.running(BODY)[0] for _ in range(count)]

    measured.rates.append(_rate(share, lambda ids: delete(server, ids)))


def bare_creates(engine: APIClient, body: dict[str, Any], measured: Measured, runs: int) -> None:
    """The same by create and start alone."""

    def one() -> str:
        mine = json.loads(json.dumps(body))
        for bindings in mine["HostConfig"]["PortBindings"].values():
            bindings[0]["HostPort"] = str(next(BARE_PORTS))
        made: str = engine.create_container_from_config(mine, f"shoal-bench-{uuid.uuid4().hex[:12]}")["Id"]  # type: ignore[no-untyped-call]  # the SDK
        engine.start(made)
        return made

    def remove(ids: list[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: engine.remove_container(each, force=True, v=True), ids))

    remove([one()])
    for _ in range(runs):
        begun = time.perf_counter()
        made = one()
        measured.singles.append(time.perf_counter() - begun)
        remove([made])
    measured.rates.append(_rate(lambda count: [one() for _ in range(count)], remove))


def _rate(share: Callable[[int], list[str]], discard: Callable[[list[str]], None]) -> float:
    """Creates a second: `CREATES` by `CLIENTS`, each of which takes the next as soon as its last one runs."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        ids = [made for each in pool.map(lambda _: share(1), range(CREATES)) for made in each]
    took = time.perf_counter() - begun
    discard(ids)
    return CREATES / took


def body_of_shoal(engine: APIClient) -> dict[str, Any]:
    """The body of a container that shoal made."""
    with shoal_on_docker() as server:
        made, _ = Client(server).running(BODY)
        try:
            return body_of(engine, made)
        finally:
            delete(server, [made])


def body_of(engine: APIClient, sandbox: str) -> dict[str, Any]:
    """The create call's body of a sandbox's container, without the labels that make it a sandbox."""
    seen = engine.inspect_container(f"sandbox-{sandbox}")
    keys = ("Image", "Entrypoint", "Cmd", "Env", "ExposedPorts")
    return {**{key: seen["Config"].get(key) for key in keys}, "HostConfig": seen["HostConfig"]}


# --- Reads, restarts, pools ------------------------------------------------------------------------------------------


def reads(started: Contestant, connections: int) -> tuple[float, float]:
    """GET by id and list of 20, a second, out of `LIVE` sandboxes."""
    with started() as server:
        with ThreadPoolExecutor(8) as pool:
            ids = [made for made, _ in pool.map(lambda _: Client(server).running(BODY), range(LIVE))]
        try:
            get = median_wrk(f"{server.base}/v1/sandboxes/{ids[0]}")
            return get, median_wrk(f"{server.base}/v1/sandboxes?pageSize=20", connections=connections, seconds=6)
        finally:
            delete(server, ids)


@contextmanager
def present(engine: APIClient, count: int) -> Iterator[None]:
    """Containers as opensandbox-server leaves them, removed afterwards. (One that never started is nobody's yet.)"""
    expires = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    def make(_: int) -> str:
        sandbox = str(uuid.uuid4())
        labels = {"opensandbox.io/id": sandbox, "opensandbox.io/expires-at": expires}
        body = {"Image": IMAGE, "Cmd": ["sleep", "86400"], "Labels": labels, "HostConfig": {"NetworkMode": "bridge"}}
        made: str = engine.create_container_from_config(body, f"sandbox-{sandbox}")["Id"]  # type: ignore[no-untyped-call]  # the SDK
        engine.start(made)
        return made

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(make, range(count)))
        try:
            yield
        finally:
            list(pool.map(lambda each: engine.remove_container(each, force=True, v=True), ids))


def start_to_list(started: Contestant, count: int) -> float:
    """Seconds from starting the process to the first list that has all ``count`` of them."""
    begun = time.perf_counter()
    with started() as server:
        client = Client(server)
        while time.perf_counter() - begun < 300:
            if client.call("GET", "/v1/sandboxes?pageSize=1")["pagination"]["totalItems"] >= count:
                return time.perf_counter() - begun
            time.sleep(0.01)
    raise RuntimeError(f"{count} sandboxes were not found within 300 s")


def take_from_pool(engine: APIClient, members: int = 8) -> float:
    """Median milliseconds of a create that a warm pool serves."""
    before = _sandboxes(engine)
    template = {key: BODY[key] for key in ("image", "entrypoint", "resourceLimits")}
    capacity = {"bufferMin": members, "bufferMax": members, "poolMin": 0, "poolMax": 4 * members}
    times: list[float] = []
    with shoal_on_docker() as server:
        client = Client(server)
        client.call("POST", "/v1/pools", {"name": "bench", "template": template, "capacitySpec": capacity})
        for _ in range(ROUNDS):
            while client.call("GET", "/v1/pools/bench")["status"]["available"] < members:
                time.sleep(0.2)
            time.sleep(1)
            taken = [client.running({"extensions": {"poolRef": "bench"}, "timeout": 600}) for _ in range(members)]
            times += [took for _, took in taken]
            delete(server, [made for made, _ in taken])
        client.call("DELETE", "/v1/pools/bench")
        deadline = time.monotonic() + 60  # the store is a scratch one: what outlives the server stays
        while _sandboxes(engine) - before and time.monotonic() < deadline:
            time.sleep(0.2)
    return statistics.median(times) * 1000


def _sandboxes(engine: APIClient) -> set[str]:
    found = engine.containers(all=True, filters={"label": ["opensandbox.io/id"]})
    return {each["Id"] for each in found if "io.kubernetes.pod.uid" not in each["Labels"]}


# --- Everything ------------------------------------------------------------------------------------------------------


PARTS = ("creates", "reads", "pool", "start")


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opensandbox-server", type=Path, help="a virtual environment that has opensandbox-server")
    parser.add_argument("--quick", action="store_true", help="small numbers, to see that it works")
    parser.add_argument("--part", choices=PARTS, action="append", help="only these")
    options, _ = parser.parse_known_args(argv)
    rounds, runs, count = (1, 3, 50) if options.quick else (ROUNDS, 10, PRESENT)
    parts = options.part or PARTS
    engine = APIClient(os.environ.get("DOCKER_HOST"), version="auto", timeout=180, max_pool_size=2 * CLIENTS)
    others: Contestant | None = theirs_on_docker(options.opensandbox_server) if options.opensandbox_server else None
    rows: list[tuple[str, str, str]] = []
    if "creates" in parts:
        rows += creates(engine, others, rounds, runs)
    if "reads" in parts:
        rows += _read_rows(reads(shoal_on_docker, 32), reads(others, 4) if others is not None else None)
    if "pool" in parts:
        rows.append(("take from a warm pool, median", f"{take_from_pool(engine):.1f} ms", "≤ 25 ms"))
    if "start" in parts:
        rows += starts(engine, others, rounds, count)
    engine.close()
    return table("Docker (one create call and one start call are the bare engine)", rows)


def creates(engine: APIClient, others: Contestant | None, rounds: int, runs: int) -> list[tuple[str, str, str]]:
    """One at a time and many at once, in turns."""
    bare, ours, theirs = Measured(), Measured(), Measured()
    body = body_of_shoal(engine)
    for _ in range(rounds):
        bare_creates(engine, body, bare, runs)
        with shoal_on_docker() as server:
            server_creates(server, ours, runs)
        if others is not None:
            with others() as server:
                server_creates(server, theirs, runs)
    return _create_rows(bare, ours, theirs if others is not None else None)


def starts(engine: APIClient, others: Contestant | None, rounds: int, count: int) -> list[tuple[str, str, str]]:
    """Medians, taken in turns."""
    ours, theirs = [], []
    with present(engine, count):
        for _ in range(rounds):
            ours.append(start_to_list(shoal_on_docker, count))
            if others is not None:
                theirs.append(start_to_list(others, count))
    return _start_rows(count, statistics.median(ours), statistics.median(theirs) if theirs else None)


def _create_rows(bare: Measured, ours: Measured, theirs: Measured | None) -> list[tuple[str, str, str]]:
    rows = [
        ("bare engine: create and start, one at a time, median", f"{bare.single_ms:.0f} ms", ""),
        (
            "create to Running, one at a time, median",
            f"{ours.single_ms:.0f} ms, {ours.single_ms / bare.single_ms:.2f} times bare",
            "≤ 1.10 times bare",
        ),
        (f"bare engine: {CREATES} creates, {CLIENTS} at a time", f"{bare.rate:.1f}/s", ""),
        (
            f"{CREATES} creates to Running, {CLIENTS} at a time",
            f"{ours.rate:.1f}/s, {ours.rate / bare.rate:.2f} times bare",
            "≥ 0.95 times bare",
        ),
    ]
    if theirs is not None:
        single = f"{theirs.single_ms:.0f} ms"
        rows.insert(1, ("opensandbox-server: create to Running, one at a time, median", single, ""))
        rows.insert(4, (f"opensandbox-server: {CREATES} creates, {CLIENTS} at a time", f"{theirs.rate:.1f}/s", ""))
    return rows


def _read_rows(ours: tuple[float, float], theirs: tuple[float, float] | None) -> list[tuple[str, str, str]]:
    rows = []
    for index, (what, least) in enumerate((("GET by id", 30), ("list of 20", 300))):
        said = f"{ours[index]:,.0f}/s"
        if theirs is not None:
            rows.append((f"opensandbox-server: {what}, {LIVE} live", f"{theirs[index]:,.1f}/s", ""))
            said += f", {ours[index] / theirs[index]:,.0f} times opensandbox-server"
        rows.append((f"{what}, {LIVE} live", said, f"≥ {least} times opensandbox-server"))
    return rows


def _start_rows(count: int, ours: float, theirs: float | None) -> list[tuple[str, str, str]]:
    what = f"start to the first list of all {count} containers present (with opensandbox-server's labels), median"
    said = f"{ours:.2f} s"
    rows = []
    if theirs is not None:
        rows.append((f"opensandbox-server: {what}", f"{theirs:.2f} s", ""))
        said += f", {ours / theirs:.2f} times opensandbox-server"
    return [*rows, (what, said, "≤ 0.5 times opensandbox-server")]


if __name__ == "__main__":
    print(main())
