"""The agent: from a create to the first output, commands, files and memory, as the Python SDK sees them.

What the SDK takes by itself, with a server that answers at once. Then on the local runtime and on Docker, beside
opensandbox-server with the agent of its own (an image that `--execd` names) and beside the bare engine's create and
start. Servers on Docker take turns: on one engine, each would take the other's sandboxes for its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import agent_memory, sdk
from bench.docker_runtime import Measured, bare_creates, body_of
from bench.harness import Server, scratch, shoal, table
from bench.instant import instant
from bench.opensandbox_server import opensandbox_server
from bench.sdk import Place
from docker import APIClient

Rows = list[tuple[str, str, str]]
CLIENTS = 4
"""Processes that create at once: the SDK takes tens of milliseconds of processor time for each sandbox."""
IMAGE = "shoal-test/debian:latest"
DOCKER = '[runtime]\ntype = "docker"\n[docker]\nnetwork_mode = "bridge"\n'
POOL = {
    "name": "warm",
    "template": {"entrypoint": ["tail", "-f", "/dev/null"], "resourceLimits": {"cpu": "1", "memory": "2Gi"}},
    "capacitySpec": {"bufferMin": 4, "bufferMax": 8, "poolMin": 4, "poolMax": 100},
}


@contextmanager
def local(extra: str = "") -> Iterator[Place]:
    """shoal on this machine."""
    with scratch() as home, shoal(home, extra) as server:
        yield Place("shoal, local", server, "host")


@contextmanager
def docker(home: Path) -> Iterator[Place]:
    """shoal on the Docker engine, with its own agent, which it builds at its first start."""
    with shoal(home, DOCKER, env={"HOME": str(home)}) as server:
        yield Place("shoal, Docker", server, IMAGE)


@contextmanager
def theirs(venv: Path, execd: str) -> Iterator[Place]:
    """opensandbox-server on the Docker engine."""
    with scratch() as home, opensandbox_server(venv, home, execd=execd) as server:
        yield Place("opensandbox-server, Docker", server, IMAGE)


def pooled(place: Place) -> Place:
    """The same out of a warm pool, once it is full."""
    template = {**POOL["template"], "image": {"uri": place.image}}  # type: ignore[dict-item]
    place.server.call("POST", "/v1/pools", {**POOL, "template": template})
    return replace(place, name=f"{place.name}, warm pool", extensions={"poolRef": "warm"})


def filled(server: Server) -> None:
    """Returns once the pool has what it should."""
    while server.call("GET", "/v1/pools/warm")["status"]["available"] < 4:
        time.sleep(0.05)


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


def first_output(place: Place, runs: int, wanted: str = "") -> Rows:
    """One after another; the first is not counted."""
    sdk.first_byte(place)
    median = statistics.median(sdk.one_by_one(place, runs, pause=0.05))
    return [(f"create to first output, {place.name}: median", ms(median), wanted)]


def by_a_new_client(place: Place, runs: int) -> Rows:
    """The SDK by default makes a client for each sandbox, with certificates that it does not need here."""
    return first_output(replace(place, name=f"{place.name}, a new client each time", anew=True), runs)


def from_a_pool(place: Place, runs: int) -> Rows:
    """One after another, each when the pool is full again."""
    warm = pooled(place)
    taken = []
    for _ in range(runs):
        filled(place.server)
        time.sleep(1)  # a pool that was just filled freezes what it started
        taken.append(sdk.first_byte(warm))
    place.server.call("DELETE", "/v1/pools/warm")
    return [(f"create to first output, {warm.name}: median", ms(statistics.median(taken)), "≤ 20 ms")]


def many(place: Place, count: int, *, judged: bool = False) -> Rows:
    """A hundred creates, staggered and at once."""
    staggered, _ = sdk.side_by_side(place, count, 0.2)
    median, rate = sdk.side_by_side(place, count, 0)
    shared_median, shared = sdk.side_by_side(place, count, 0, processes=CLIENTS)
    name, wanted = f"create to first output, {place.name}, {count}", ("≤ 50 ms", "≥ 40/s") if judged else ("", "")
    return [
        (f"{name}, one every 0.2 s: median", ms(staggered), wanted[0]),
        (f"{name} at once by one process: all succeed, median", f"{rate:.0f}/s, {ms(median)}", ""),
        (
            f"{name} at once by {CLIENTS} processes: all succeed, median",
            f"{shared:.0f}/s, {ms(shared_median)}",
            wanted[1],
        ),
    ]


def without_reports(place: Place) -> Place:
    """The same by an SDK that reports no usage."""
    return replace(place, name=f"{place.name}, without the SDK's reports", silent=True)


def the_sdk_alone(runs: int) -> Rows:
    """What the SDK itself takes, of each of the figures for shoal."""
    with instant() as server:
        place = Place("a server that answers at once", server, "host")
        quiet = without_reports(place)
        return first_output(place, runs) + many(place, 100) + first_output(quiet, runs) + many(quiet, 100)


def running(place: Place, runs: int, *, judged: bool = False) -> Rows:
    """Commands and files in one sandbox."""
    with sdk.sandbox(place) as made:
        sdk.echoes(made, min(runs, 20))
        taken = sorted(sdk.echoes(made, runs))
        rate = sdk.echoes_side_by_side(made, 5)
        written, read = sdk.written(made, 50), sdk.read(made, 50)
    wanted = ["≤ 5 ms, ≤ 15 ms", "≥ 250/s", "≤ 4 ms", "≤ 3 ms"] if judged else [""] * 4
    return [
        (f'run("echo"), {place.name}: median, 99th percentile', _median_and_late(taken), wanted[0]),
        (f"commands a second, 16 at once in one sandbox, {place.name}", f"{rate:,.0f}/s", wanted[1]),
        (f"1 MB written, {place.name}: median", ms(statistics.median(written)), wanted[2]),
        (f"1 MB read, {place.name}: median", ms(statistics.median(read)), wanted[3]),
    ]


def _median_and_late(taken: list[float]) -> str:
    return f"{ms(statistics.median(taken))}, {ms(taken[int(len(taken) * 0.99)])}"


def on_this_machine(runs: int) -> Rows:
    rows = the_sdk_alone(runs)
    with local() as place:
        rows += (
            by_a_new_client(place, runs)
            + first_output(place, runs, "≤ 40 ms")
            + many(place, 100, judged=True)
            + first_output(without_reports(place), runs)
            + many(without_reports(place), 100)
            + running(place, 500, judged=True)
        )
        rows += from_a_pool(place, runs // 2)
        rows += agent_memory.measured(place)
    with local('[local]\nnetwork = "none"\n') as place:
        without = replace(place, name=f"{place.name}, no way out")
        rows += first_output(without, runs) + many(without, 100)
    return rows


def on_docker(runs: int, venv: Path | None, execd: str | None) -> Rows:
    engine, bare, rows = APIClient(timeout=60), Measured(), Rows()
    with scratch() as home, docker(home) as place:
        with sdk.sandbox(place) as made:
            body = body_of(engine, made.id)
        bare_creates(engine, body, bare, runs)
        alone = statistics.median(bare.singles)
        rows.append(("create and start of the same container, the bare engine: median", ms(alone), ""))
        rows += first_output(place, runs, f"≤ {ms(1.15 * alone)} (1.15 times the bare engine's)")
        rows += running(place, 500, judged=True) + agent_memory.idle(place, "≤ 25 MB")
        rows += from_a_pool(place, runs // 2)
    if venv and execd:
        with theirs(venv, execd) as place:
            rows += first_output(place, min(runs, 10)) + running(place, 20)
    return rows


def main(argv: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--opensandbox-server", type=Path)
    parser.add_argument("--execd", help="the image of opensandbox-server's own agent")
    parser.add_argument("--docker", action="store_true")
    parser.add_argument("--runs", type=int, default=40)
    options, _ = parser.parse_known_args(argv)
    rows = on_this_machine(options.runs)
    if options.docker:
        rows += on_docker(options.runs, options.opensandbox_server, options.execd)
    return table("The agent, by the Python SDK through the server's proxy", rows)


if __name__ == "__main__":
    print(main())
