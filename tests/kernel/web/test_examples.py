"""Every example in the OpenAPI document is one of its schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jsonschema_rs
import msgspec
import pytest
from tests.kernel.web.wired import Web

from shoal.web import openapi

Pointer = tuple[str, ...]


@pytest.fixture
def document(web: Web) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(openapi.document(web.table().rows))
    return found


def nodes(node: Any, at: Pointer = ()) -> Iterator[tuple[Pointer, dict[str, Any]]]:
    """Every object of the document, by where it stands."""
    if isinstance(node, dict):
        yield at, node
        for key, inner in node.items():
            yield from nodes(inner, (*at, key))
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from nodes(inner, (*at, str(index)))


def examples(document: dict[str, Any]) -> Iterator[tuple[Pointer, Any]]:
    """Where a schema stands, and an example of it: in the schema itself, or beside it in a parameter or a body."""
    for at, node in nodes(document):
        if at and at[-1] in ("properties", "schemas", "patternProperties"):
            continue  # there these are names of fields
        schema = (*at, "schema") if "schema" in node else at
        given = node.get("examples", [])
        values = [each["value"] for each in given.values()] if isinstance(given, dict) else given
        for value in [*values, *([node["example"]] if "example" in node else [])]:
            yield schema, value


def wrong(document: dict[str, Any]) -> list[str]:
    """What does not fit."""
    found = []
    for schema, value in examples(document):
        pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in schema)
        root = {**document, "$ref": f"#/{quote(pointer, safe='/~')}"}
        errors = jsonschema_rs.Draft202012Validator(root, validate_formats=True).iter_errors(value)
        found += [f"{pointer}: {value!r}: {error.message}" for error in errors]
    return found


def test_every_example_is_one_of_its_schema(document: dict[str, Any]) -> None:
    assert len(list(examples(document))) > 40
    assert wrong(document) == []


def test_one_that_is_not_is_found(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["Broken"] = {
        "type": "object",
        "properties": {"at": {"type": "string", "format": "date-time", "examples": ["tomorrow"]}},
        "examples": [{"at": 1}],
    }
    assert [each.partition(":")[0] for each in wrong(document)] == [
        "components/schemas/Broken",
        "components/schemas/Broken/properties/at",
    ]
