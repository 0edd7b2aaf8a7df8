"""What asks for a gateway is refused where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.support.servers import ServerProcess


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    server = ServerProcess(tmp_path_factory.mktemp("direct"), '[runtime]\ntype = "local"\n')
    server.start()
    with httpx.Client(base_url=server.base, timeout=60, trust_env=False) as client:
        yield client
    assert server.stop() == 0


def test_secure_access(http: httpx.Client) -> None:
    body = {"image": {"uri": "host"}, "entrypoint": ["sleep", "60"], "resourceLimits": {}, "secureAccess": True}
    answer = http.post("/v1/sandboxes", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
    assert "no enabled plugin demands access tokens" in answer.json()["message"]
    assert http.get("/v1/sandboxes").json()["items"] == []


def test_signed_endpoints_before_the_port_is_looked_at(http: httpx.Client) -> None:
    answer = http.get("/v1/sandboxes/any/endpoints/70000?expires=4102444800")
    assert (answer.status_code, answer.json()["code"]) == (400, "SANDBOX::API_NOT_SUPPORTED")
