"""A namespace of its own on a real cluster, and clients for it."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from shoal_k8s.api import KubeClient, Resource
from shoal_k8s.api.connection import Connection

NAMESPACES = Resource("", "v1", "namespaces")


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    """The cluster of KUBECONFIG, with all rights."""
    client = KubeClient(Connection(os.environ["KUBECONFIG"]))
    yield client
    client.close()


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    """A fresh namespace, deleted afterwards with everything in it."""
    name = f"shoal-test-{uuid.uuid4().hex[:10]}"
    await client.create(NAMESPACES, None, {"metadata": {"name": name}}, msgspec.Raw)
    try:
        yield name
    finally:
        await client.delete(NAMESPACES, None, name)


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that must come; the bound only turns a hang into a failure."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come"
        await asyncio.sleep(0.02)
