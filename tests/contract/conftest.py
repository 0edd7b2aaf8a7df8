"""A real server on the local runtime for the contract tests, one for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.contract.key import KEY
from tests.support.servers import ServerProcess


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """With an API key, so that every client has to send one."""
    home: Path = tmp_path_factory.mktemp("contract")
    server = ServerProcess(home, env={"OPENSANDBOX_SERVER_API_KEY": KEY})
    server.start()
    yield server
    with httpx.Client(base_url=server.base, headers={"OPEN-SANDBOX-API-KEY": KEY}, timeout=30) as http:
        for item in http.get("/v1/sandboxes?pageSize=200").json()["items"]:
            http.delete(f"/v1/sandboxes/{item['id']}")
    assert server.stop() == 0


@pytest.fixture
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """A plain client that carries the key."""
    with httpx.Client(base_url=server.base, headers={"OPEN-SANDBOX-API-KEY": KEY}, timeout=60) as client:
        yield client
