"""The OpenAPI document says what the application does: no more routes, no fewer, and no answer that it leaves out."""

from __future__ import annotations

import re
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.kernel.web.conftest import Web

from shoal.web import openapi
from shoal.web.operations import OPERATIONS
from shoal.web.routes import build

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


def test_document_and_routes_are_the_same(web: Web) -> None:
    document = msgspec.json.decode(openapi.document())
    app = build(web.sandboxes, web.readiness, web.settings, "1")
    routed = set()
    for mount in ("", "/v1"):
        for path in {row.path for row in OPERATIONS}:
            found = app._router.find(re.sub(r"\{\w+\}", "x", mount + path))
            if found is not None:
                methods = [method.lower() for method in found[1] if getattr(found[0], f"on_{method.lower()}", None)]
                routed |= {(mount + path, method) for method in methods}
    assert routed == {(path, method) for path, methods in document["paths"].items() for method in methods}


def test_document_says_which_contract_it_is() -> None:
    document = msgspec.json.decode(openapi.document())
    assert document["openapi"].startswith("3.1")
    assert (document["info"]["title"], document["info"]["version"]) == ("OpenSandbox Lifecycle API", "0.1.0")
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(names) == len(set(names))
    sandbox = document["components"]["schemas"]["Sandbox"]
    assert set(sandbox["required"]) == {"id", "status", "createdAt", "entrypoint"}
    password = document["components"]["schemas"]["ImageAuth"]["properties"]["password"]
    assert password.items() >= {"type": "string", "format": "password", "writeOnly": True}.items()


async def test_document_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.content == openapi.document()


def documented() -> list[Any]:
    """Every operation of the document, tied to an application that has a few sandboxes."""
    web = Web()
    web.proxy.headers, web.proxy.content = [(b"content-type", b"application/json")], b"{}"
    for _ in range(3):
        web.sandboxes.add()
    schema = schemathesis.openapi.from_asgi("/openapi.json", web.app())
    return [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]  # an Err raises


@pytest.mark.parametrize("operation", documented(), ids=lambda operation: operation.label)
def test_no_answer_is_undocumented(operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
