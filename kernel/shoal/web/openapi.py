"""The server's own OpenAPI 3.1 document: operations and bodies as the resources declare them, texts from
`shoal.web.descriptions`.

The version is the API's, not the package's. Every route exists bare and under ``/v1``; both are listed, as
existing clients generate from either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from shoal.models.secret import Secret
from shoal.plugin.interfaces import TEXT, Operation
from shoal.web.descriptions import HEADERS, PATH_PARAMETERS, as_fields, described
from shoal.web.render import ErrorBody
from shoal.web.schemes import OPEN, Schemes
from shoal.web.table import MOUNTS, Row

Document = dict[str, Any]

TITLE = "OpenSandbox Lifecycle API"
DESCRIPTION = "Creates, runs, pauses, renews, reaches and disposes of sandboxes."
CONTRACT_VERSION = "0.1.0"

_SHARED_ERRORS = (401, 403, 422, 500, 503)
_STATUS_TEXT = {
    200: "Success",
    201: "Created",
    202: "Accepted",
    204: "Done; no content",
    400: "A rule beyond the schema is broken",
    401: "The credential is missing or unknown",
    403: "The credential does not allow it, or a quota is used up",
    404: "Not found",
    409: "The present state does not allow it",
    413: "The body is too large",
    422: "The path, query or body does not fit the schema; `detail` lists every problem",
    429: "Too much at once; Retry-After says when to try again",
    500: "The server, or an engine behind it, failed",
    501: "The runtime does not support it",
    502: "What the request is handed to could not be reached, or does not speak HTTP",
    503: "A part that is needed is away; Retry-After says when to try again",
    504: "What the request is handed to did not answer in time",
}


def document(rows: Sequence[Row], credentials: Schemes = OPEN) -> bytes:
    """The document as JSON. ``credentials`` are what a request must carry."""
    ordered = sorted(_kinds(rows), key=str)
    schemas, components = msgspec.json.schema_components(
        ordered, schema_hook=_schema_of, ref_template="#/components/schemas/{name}"
    )
    refs = dict(zip(map(str, ordered), schemas, strict=True))
    paths: dict[str, Document] = {}
    for mount in MOUNTS:
        for row in rows:
            if not (mount and row.public):
                operation = {**_operation(row, mount, refs)}
                if row.operation.creates:
                    success = operation["responses"][str(row.operation.status)]
                    success["links"] = _links(rows, row.operation.creates, mount)
                paths.setdefault(mount + row.path, {})[row.method] = operation
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": TITLE, "version": CONTRACT_VERSION, "description": DESCRIPTION},
            "paths": paths,
            "components": {
                "schemas": {name: described(name, schema) for name, schema in components.items()},
                "securitySchemes": credentials.components,
            },
            **({} if credentials.alternatives is None else {"security": credentials.alternatives}),
        }
    )


def _kinds(rows: Iterable[Row]) -> set[Any]:
    """Every type of a body."""
    declared = [row.operation for row in rows]
    kinds = {kind for one in declared for kind in (*one.answers, *one.error_bodies.values(), one.body)}
    return {kind for kind in kinds if kind not in (None, TEXT)} | {ErrorBody}


def _operation(row: Row, mount: str, refs: Mapping[str, Document]) -> Document:
    declared = row.operation
    shared = () if row.public else _SHARED_ERRORS
    answers: Document = {str(declared.status): _success(declared, refs)}
    for status in sorted({*declared.errors, *shared, *declared.error_bodies}):
        kind = declared.error_bodies.get(status, ErrorBody)
        answers[str(status)] = _response(status, {"application/json": {"schema": refs[str(kind)]}})
    operation: Document = {
        "operationId": _operation_id(row, mount),
        "summary": declared.summary,
        "parameters": [*_path_parameters(row), *declared.parameters, _REQUEST_ID],
        "responses": answers,
    }
    if row.public:
        operation["security"] = []
    if declared.body is not None:
        operation["requestBody"] = _request_body(declared, refs)
    return operation


def _request_body(declared: Operation, refs: Mapping[str, Document]) -> Document:
    schema = refs[str(declared.body)]
    if not declared.body_required:
        schema = {"anyOf": [schema, {"type": "null"}]}
    content = {"schema": schema} if declared.example is None else {"schema": schema, "example": declared.example}
    return {"required": declared.body_required, "content": {"application/json": content}}


_REQUEST_ID = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Identifier of the request, returned with the answer; the server makes one where it is absent.",
}


def _success(declared: Operation, refs: Mapping[str, Document]) -> Document:
    content: Document = {}
    for answer in declared.answers:
        if answer == TEXT:
            content["text/plain; charset=utf-8"] = {"schema": {"type": "string"}}
        else:
            content["application/json"] = {"schema": refs[str(answer)]}
    return _response(declared.status, content, declared.headers)


def _response(status: int, content: Document, headers: Iterable[str] = ()) -> Document:
    names = ["X-Request-ID", *headers, *(["Retry-After"] if status in (429, 503) else [])]
    response: Document = {
        "description": _STATUS_TEXT.get(status) or HTTPStatus(status).phrase,
        "headers": {name: {"schema": {"type": "string"}, "description": HEADERS.get(name, name)} for name in names},
    }
    if content:
        response["content"] = content
    return response


def _links(rows: Iterable[Row], parameter: str, mount: str) -> Document:
    """From what was created to the operations on it."""
    return {
        name: {"operationId": name, "parameters": {parameter: "$response.body#/id"}}
        for row in rows
        if f"{{{parameter}}}" in row.path
        for name in [_operation_id(row, mount)]
    }


def _operation_id(row: Row, mount: str) -> str:
    return row.operation.name + ("V1" if mount else "")


def _path_parameters(row: Row) -> list[Document]:
    names = [part[1:-1] for part in row.path.split("/") if part.startswith("{")]
    return [_path_parameter(name.partition(":")[0], row.parameters) for name in names]


def _path_parameter(name: str, own: Mapping[str, str]) -> Document:
    text = as_fields(own.get(name) or PATH_PARAMETERS.get(name) or name)
    schema: Document = {"type": "integer" if name == "port" else "string"}
    if "examples" in text:
        schema["examples"] = text["examples"]
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": text["description"]}


def _schema_of(kind: type) -> Document:
    if kind is Secret:
        return {"type": "string", "format": "password", "writeOnly": True}
    raise NotImplementedError(kind)
