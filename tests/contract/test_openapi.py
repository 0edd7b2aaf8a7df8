"""schemathesis asks the real server, by the server's own document, whatever it can think of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.kernel.web.wired import Web
from tests.support.servers import ServerProcess

from shoal.web import openapi

CHECKS = [content_type_conformance, response_headers_conformance, response_schema_conformance, status_code_conformance]
SUPPORTED_5XX = {501, 502}
"""The local runtime keeps no policies, and says so."""


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Without a key, on loopback; long polls are short, so that the examples are not."""
    home: Path = tmp_path_factory.mktemp("openapi")
    server = ServerProcess(home, "[lifecycle]\nwait_limit_seconds = 0.1\nendpoint_wait_seconds = 0.5\n")
    server.start()
    yield server
    with httpx.Client(base_url=server.base, timeout=30) as http:
        for pool in http.get("/v1/pools").json()["items"]:
            http.delete(f"/v1/pools/{pool['name']}")
        while items := http.get("/v1/sandboxes?pageSize=200").json()["items"]:
            for item in items:
                http.delete(f"/v1/sandboxes/{item['id']}")
    assert server.stop() == 0


def _operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(msgspec.json.decode(openapi.document(Web().table().rows)))
    return [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]  # an Err raises


@pytest.mark.parametrize("operation", _operations(), ids=lambda operation: operation.label)
def test_no_5xx_and_no_undocumented_answer(operation: Any, open_server: ServerProcess) -> None:
    made = httpx.post(
        f"{open_server.base}/v1/sandboxes",
        json={"image": {"uri": "host"}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600},
        timeout=30,
    ).json()["id"]

    @given(case=operation.as_strategy())
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        if len(case.path_parameters.get("sandbox_id", "")) % 2:
            case.path_parameters["sandbox_id"] = made  # half of the time one that exists
        answer = case.call_and_validate(base_url=open_server.base, checks=CHECKS, timeout=60)
        assert answer.status_code < 500 or answer.status_code in SUPPORTED_5XX
        assert re.fullmatch(r"[ -~]{1,128}", answer.headers["x-request-id"][0])

    ask()
