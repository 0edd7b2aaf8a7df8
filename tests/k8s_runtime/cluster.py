"""Namespaces of a real cluster, and the cluster where the real controllers run."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
from tests.support import real

from shoal_k8s.api import KubeClient, Resource
from shoal_k8s.api.connection import ApiConnection

NAMESPACES = Resource("", "v1", "namespaces")


@asynccontextmanager
async def fresh_namespace(client: KubeClient) -> AsyncIterator[str]:
    """A namespace, deleted afterwards with everything in it."""
    name = f"shoal-test-{uuid.uuid4().hex[:10]}"
    await client.create(NAMESPACES, None, {"metadata": {"name": name}}, msgspec.Raw)
    try:
        yield name
    finally:
        await client.delete(NAMESPACES, None, name)


@asynccontextmanager
async def real_controllers() -> AsyncIterator[tuple[KubeClient, str]]:
    """Where the real controllers run: a client, and a namespace that they look at (``needs("real")``).

    They look at all, so they are not to run on a cluster that has their stand-ins. A pause of a BatchSandbox needs the
    registry that their flags name; SHOAL_TEST_REAL_NAMESPACE may name a namespace with the secrets that it takes, and
    with no sandboxes but those of the tests.
    """
    client = KubeClient(ApiConnection(real.part("controllers")))
    given = os.environ.get("SHOAL_TEST_REAL_NAMESPACE")
    async with AsyncExitStack() as stack:
        stack.callback(client.close)
        namespace = given if given is not None else await stack.enter_async_context(fresh_namespace(client))
        yield client, namespace
