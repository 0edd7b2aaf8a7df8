"""The web layer in process, on the stand-ins of `fakes`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from tests.kernel.web.wired import Web


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def connect(web: Web) -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """``connect()`` builds the application as ``web`` then says, and gives a client of it."""
    clients: list[httpx.AsyncClient] = []

    def client() -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url="http://shoal.test:8080"))
        return clients[-1]

    yield client
    for each in clients:
        await each.aclose()


@pytest.fixture
def client(connect: Callable[[], httpx.AsyncClient]) -> httpx.AsyncClient:
    return connect()
