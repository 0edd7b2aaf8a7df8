"""One container on the real engine, for tests of what goes into a create call."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from shoal_docker.engine import Engine

IMAGE = "shoal-test/busybox:latest"


def unique(kind: str) -> str:
    """A name that no other test run uses."""
    return f"shoal-d3-{kind}-{uuid.uuid4().hex[:12]}"


@asynccontextmanager
async def started_engine() -> AsyncIterator[Engine]:
    """The engine of the environment."""
    engine = Engine(None, timeout=60, threads=4)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def output(engine: Engine, command: Sequence[str], host_config: Mapping[str, Any], **config: Any) -> str:
    """What the command prints in a container of that shape, which is gone afterwards."""
    name = unique("once")
    whole = {"Image": IMAGE, "Cmd": list(command), "HostConfig": dict(host_config), **config}
    try:
        await engine.call("create_container_from_config", whole, name)
        await engine.call("start", name)
        await engine.call("wait", name, timeout=60)
        printed: bytes = await engine.call("logs", name)
    finally:
        await engine.call("remove_container", name, force=True, v=True)
    return printed.decode()
