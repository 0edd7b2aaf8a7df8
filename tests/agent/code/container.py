"""An agent in a container of an image with IPython, matplotlib, and a Jupyter server with its kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import docker
import httpx

IMAGE = "shoal-test/jupyter:latest"
SOURCE = Path(__file__).parents[3] / "plugins" / "agent"
AGENT = "/agent"


@contextmanager
def agent_in_container(
    env: Mapping[str, str], start: str = "sleep infinity", memory: str | None = None
) -> Iterator[httpx.Client]:
    """A client of an agent that runs on the image's own python3, beside the command `start`."""
    engine = docker.from_env(timeout=60)
    container = engine.containers.run(
        IMAGE,
        ["sh", "-c", f"python3 -m shoal_agent & exec {start}"],
        detach=True,
        mem_limit=memory,
        environment={"PYTHONPATH": AGENT, "EXECD_ENVS": "/tmp/envs", **env},
        volumes={str(SOURCE): {"bind": AGENT, "mode": "ro"}},
    )
    try:
        container.reload()
        address = next(iter(container.attrs["NetworkSettings"]["Networks"].values()))["IPAddress"]
        with httpx.Client(base_url=f"http://{address}:44772", timeout=90) as client:
            _await(client)
            yield client
    finally:
        container.remove(force=True, v=True)
        engine.close()


def _await(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.get("/ping")
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
