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
from tests.kernel.web.wired import Web

from shoal.web import openapi
from shoal.web.resources.pages import FILES
from shoal.web.routes import build

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


UNDECLARED = {"/templates", "/templates/{template_id}"}
"""Routes that are no part of the document: it tells what the server offers."""


def test_document_and_routes_are_the_same(web: Web) -> None:
    table = web.table()
    document = msgspec.json.decode(openapi.document(table.rows))
    router = build(table)._router
    routed = set()
    for path in table.mounted:
        found = router.find(re.sub(r"\{\w+\}", "x", path))
        assert found is not None
        methods = [method.lower() for method in found[1] if getattr(found[0], f"on_{method.lower()}", None)]
        if path.removeprefix("/v1") not in UNDECLARED:
            routed |= {(path, method) for method in methods}
    assert routed == {(path, method) for path, methods in document["paths"].items() for method in methods}


def test_scopes_are_those_of_the_methods_and_public_paths_are_few(web: Web) -> None:
    table = web.table()
    for row in table.rows:
        expected = "read" if row.method == "get" else "write"
        assert table.scope(f"/v1{row.path}", row.method.upper()) == expected
    document = msgspec.json.decode(openapi.document(table.rows))
    operations = ((path, one) for path, methods in document["paths"].items() for one in methods.values())
    assert {path for path, one in operations if one.get("security") == []} == {"/health", "/ready", "/version"}
    assert table.public == {"/health", "/ready", "/version", "/openapi.json", *FILES}


def test_the_document_describes_every_declaration(web: Web) -> None:
    table = web.table()
    document = msgspec.json.decode(openapi.document(table.rows))
    for row in table.rows:
        told, declared = document["paths"][row.path][row.method], row.operation
        assert (told["operationId"], told["summary"]) == (declared.name, declared.summary)
        assert {str(declared.status), *map(str, declared.errors)} <= set(told["responses"])
        assert ("requestBody" in told) == (declared.body is not None)


def test_document_says_which_contract_it_is() -> None:
    document = msgspec.json.decode(openapi.document(Web().table().rows))
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
    assert response.content == openapi.document(Web().table().rows)


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
