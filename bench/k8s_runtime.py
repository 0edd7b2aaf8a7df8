"""The Kubernetes runtime on a real cluster: a pod beside ``kubectl run``, reads and an informer among many objects.

The objects are pods that no scheduler looks at, with a status that the bench writes: to the API server and to shoal
they are pods like others, and the node need not run them. They are in a namespace that is deleted at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from bench.harness import HERE, Server, median_wrk, scratch, shoal, table

from shoal_k8s import names
from shoal_k8s.api import KubeClient
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.informer import Informer
from shoal_k8s.pods.objects import PODS, Pod

IMAGE = "shoal-test/busybox:latest"
COMMAND = ["sleep", "86400"]
ROUNDS, PRESENT, MANY, IDLE_SECONDS = 10, 2_000, 10_000, 150


@contextmanager
def namespace() -> Iterator[str]:
    """A namespace of the bench's own."""
    name = f"shoal-bench-{uuid.uuid4().hex[:8]}"
    subprocess.run(["kubectl", "create", "namespace", name], check=True, stdout=subprocess.DEVNULL)
    try:
        yield name
    finally:
        subprocess.run(["kubectl", "delete", "namespace", name], check=True, stdout=subprocess.DEVNULL)


def configuration(where: str) -> str:
    """Of a server on that namespace."""
    return (
        f'[runtime]\ntype = "kubernetes"\n[kubernetes]\nkubeconfig_path = "{os.environ["KUBECONFIG"]}"\n'
        f'namespace = "{where}"\nworkload_provider = "pod"\n'
    )


def by_kubectl(where: str) -> float:
    """Seconds from ``kubectl run`` to Ready, as ``kubectl wait`` tells it."""
    name = f"bare-{uuid.uuid4().hex[:8]}"
    run = ["kubectl", "-n", where, "run", name, f"--image={IMAGE}", "--image-pull-policy=IfNotPresent"]
    begun = time.perf_counter()
    subprocess.run([*run, "--restart=Never", "--command", "--", *COMMAND], check=True, stdout=subprocess.DEVNULL)
    wait = ["kubectl", "-n", where, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s"]
    subprocess.run(wait, check=True, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - begun
    delete = ["kubectl", "-n", where, "delete", "pod", name, "--grace-period=0", "--force"]
    subprocess.run(delete, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return taken


def by_shoal(server: Server) -> tuple[float, float]:
    """Seconds to the answer of POST, and to Running."""
    body = {"image": {"uri": IMAGE}, "entrypoint": COMMAND, "resourceLimits": {}, "timeout": 86400}
    begun = time.perf_counter()
    made = server.call("POST", "/v1/sandboxes", body)["id"]
    answered = time.perf_counter() - begun
    state = server.call("GET", f"/v1/sandboxes/{made}?wait=Running&timeout=60")["status"]["state"]
    taken = time.perf_counter() - begun
    if state != "Running":
        raise RuntimeError(state)
    server.call("DELETE", f"/v1/sandboxes/{made}")
    return answered, taken


def creates(where: str) -> list[tuple[str, str, str]]:
    """Both, in turns."""
    bare, posted, running = [], [], []
    with scratch() as home, shoal(home, configuration(where)) as server:
        by_kubectl(where), by_shoal(server)
        for _ in range(ROUNDS):
            bare.append(by_kubectl(where))
            answered, taken = by_shoal(server)
            posted.append(answered)
            running.append(taken)
    plain, ours, post = (statistics.median(found) * 1e3 for found in (bare, running, posted))
    return [
        ("kubectl run and kubectl wait to Ready, median", f"{plain:,.0f} ms", ""),
        ("create to Running with provider pod, median", f"{ours:,.0f} ms", f"≤ {1.05 * plain:,.0f} ms (1.05 of that)"),
        ("POST answered, median", f"{post:.1f} ms", "≤ 20 ms"),
    ]


async def fill(where: str, count: int) -> list[str]:
    """That many sandboxes' pods, running as far as anybody can tell; returns the ids."""
    client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
    gate = asyncio.Semaphore(16)
    ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
    main = {
        "name": "sandbox",
        "ready": True,
        "state": {"running": {}},
        "image": IMAGE,
        "imageID": "",
        "restartCount": 0,
    }
    status = {"phase": "Running", "podIP": "10.255.0.1", "conditions": ready, "containerStatuses": [main]}

    async def one(sandbox_id: str) -> None:
        async with gate:
            await client.create(PODS, where, pod(sandbox_id), msgspec.Raw)
            await client.patch(PODS, where, f"{sandbox_id}/status", {"status": status}, msgspec.Raw)

    ids = [str(uuid.uuid4()) for _ in range(count)]
    await asyncio.gather(*map(one, ids))
    client.close()
    return ids


def pod(sandbox_id: str) -> dict[str, Any]:
    """As the provider makes it, for no scheduler."""
    annotations = {names.CREATED: names.write_time(datetime.now(UTC)), names.ENTRYPOINT: '["sleep","86400"]'}
    labels = {names.ID: sandbox_id, names.MANUAL: "true", "team": "bench"}
    container = {"name": "sandbox", "image": IMAGE, "command": COMMAND}
    return {
        "metadata": {"name": sandbox_id, "labels": labels, "annotations": annotations},
        "spec": {"schedulerName": "nobody", "restartPolicy": "Never", "containers": [container]},
    }


def reads(where: str) -> list[tuple[str, str, str]]:
    """GET and list among many."""
    ids = asyncio.run(fill(where, PRESENT))
    with scratch() as home, shoal(home, configuration(where)) as server:
        total = server.call("GET", "/v1/sandboxes")["pagination"]["totalItems"]
        if total < PRESENT:
            raise RuntimeError(f"only {total} of {PRESENT} are seen")
        get = median_wrk(f"{server.base}/v1/sandboxes/{ids[0]}")
        page = median_wrk(f"{server.base}/v1/sandboxes")
        memory = server.rss_mb()
    return [
        (f"GET by id, {total:,} sandbox objects", f"{get:,.0f}/s", "≥ 10,000/s"),
        (f"list of 20 out of {total:,}", f"{page:,.0f}/s", "≥ 3,000/s"),
        (f"the server's resident memory, {total:,} sandbox objects", f"{memory:.0f} MB", ""),
    ]


class Counting(ApiConnection):
    """Counts its requests."""

    requests = 0

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """One more."""
        self.requests += 1
        return super().open(*args, **kwargs)


async def follow(where: str) -> str:
    """What a process with one informer holds, how long it took, its memory in MB, and what it asks for while idle."""
    connection = Counting(os.environ["KUBECONFIG"])
    pods = Informer(connection, PODS, where, Pod, query={"labelSelector": names.ID})
    begun = time.perf_counter()
    await pods.start()
    ready = time.perf_counter() - begun
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    first = connection.requests
    await asyncio.sleep(IDLE_SECONDS)
    await pods.stop()
    return f"{len(pods)} {ready:.2f} {resident:.0f} {(connection.requests - first) * 60 / IDLE_SECONDS:.2f}"


def informer(where: str) -> list[tuple[str, str, str]]:
    """One over 10,000 objects."""
    asyncio.run(fill(where, MANY - PRESENT))
    command = [sys.executable, "-m", "bench.k8s_runtime", "--follow", where]
    said = subprocess.run(command, cwd=HERE.parent, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    count, ready, resident, asked = said.split()
    return [
        (f"informer over {int(count):,} objects: ready after", f"{ready} s", "≤ 10 s"),
        ("the same: peak memory of its process", f"{resident} MB", "≤ 300 MB"),
        (f"the same: requests a minute while idle, over {IDLE_SECONDS} s", asked, "≤ 1"),
    ]


def main(argv: list[str] | None = None) -> str:
    """Measure; returns Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--follow", help="used by the bench itself")
    args, _ = parser.parse_known_args(argv)
    if args.follow:
        return asyncio.run(follow(args.follow))
    with namespace() as where:
        rows = [*creates(where), *reads(where), *informer(where)]
    return table(f"The Kubernetes runtime, provider pod, {ROUNDS} creates each in turns", rows)


if __name__ == "__main__":
    print(main())
