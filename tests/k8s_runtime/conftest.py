"""A namespace of its own on a real cluster, and a client for it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
from tests.k8s_runtime.cluster import fresh_namespace

from shoal_k8s.api import KubeClient
from shoal_k8s.api.connection import ApiConnection


@pytest.fixture
async def client() -> AsyncIterator[KubeClient]:
    """The cluster of KUBECONFIG, with all rights."""
    client = KubeClient(ApiConnection(os.environ["KUBECONFIG"]))
    yield client
    client.close()


@pytest.fixture
async def namespace(client: KubeClient) -> AsyncIterator[str]:
    async with fresh_namespace(client) as name:
        yield name
