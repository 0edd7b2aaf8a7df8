"""/openapi.json is for users: everything in it is described, nothing in it speaks of modules or classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.kernel.web.wired import Web

import shoal
from shoal.web import openapi
from shoal.web.descriptions import HEADERS, PATH_PARAMETERS, SCHEMAS

DOCUMENT: Final = msgspec.json.decode(openapi.document(Web().table().rows))
COMPONENTS: Final = DOCUMENT["components"]["schemas"]
KERNEL: Final = Path(shoal.__file__).parent


def texts(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(place, text) of every description and summary."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("description", "summary") and isinstance(value, str):
                yield f"{path}/{key}", value
            else:
                yield from texts(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from texts(value, f"{path}/{number}")


def properties() -> Iterator[tuple[str, Any]]:
    for name, schema in COMPONENTS.items():
        yield from ((f"{name}.{key}", value) for key, value in schema.get("properties", {}).items())


def operations() -> Iterator[tuple[str, Any]]:
    for path, methods in DOCUMENT["paths"].items():
        yield from ((f"{method} {path}", operation) for method, operation in methods.items())


def classes() -> set[str]:
    """The names of the kernel's classes that have more than one capital: nobody would write them as a word."""
    trees = (ast.parse(file.read_text(encoding="utf-8")) for file in KERNEL.rglob("*.py"))
    names = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return {name for name in names if len(re.findall("[A-Z]", name)) > 1}


def test_every_schema_is_described() -> None:
    assert [name for name, schema in COMPONENTS.items() if not schema.get("description")] == []


def test_every_property_is_described() -> None:
    assert [name for name, schema in properties() if not schema.get("description")] == []


def test_every_parameter_and_header_is_described() -> None:
    bare = []
    for name, operation in operations():
        bare += [(name, one["name"]) for one in operation["parameters"] if not one.get("description")]
        for answer in operation["responses"].values():
            bare += [(name, key) for key, header in answer.get("headers", {}).items() if not header.get("description")]
    assert bare == []


def test_texts_are_sentences() -> None:
    wrong = [(place, text) for place, text in texts(DOCUMENT) if not re.match(r"[A-Z`0-9]", text)]
    assert wrong == []
    properties_only = [(place, text) for place, text in texts(COMPONENTS) if not text.endswith(".")]
    assert properties_only == []


def test_times_have_their_format() -> None:
    wrong = [
        name
        for name, schema in properties()
        if re.search(r"(At|expires_at)$", name) and schema.get("format") != "date-time"
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "pattern",
    [
        r"\bshoal\.",
        r"docs/",
        r"\bRaises?\b",
        r"Attributes:",
        r"``",
        r"\bStruct\b",
        r"\bNone\b",
        r"\bhook",
        r"\w+_\w+\(",
    ],
)
def test_nothing_is_meant_for_maintainers(pattern: str) -> None:
    assert [(place, text) for place, text in texts(DOCUMENT) if re.search(pattern, text)] == []


def test_no_text_names_a_class() -> None:
    names = re.compile(rf"\b({'|'.join(sorted(classes()))})\b")
    assert [(place, text) for place, text in texts(DOCUMENT) if names.search(text)] == []


def test_every_text_is_used() -> None:
    assert SCHEMAS.keys() == COMPONENTS.keys()
    for name, (_, described) in SCHEMAS.items():
        assert described.keys() == COMPONENTS[name].get("properties", {}).keys(), name
    parameters = [one for _, operation in operations() for one in operation["parameters"]]
    own = {name for row in Web().table().rows for name in row.parameters}
    assert PATH_PARAMETERS.keys() | own == {one["name"] for one in parameters if one["in"] == "path"}
    answers = [answer for _, operation in operations() for answer in operation["responses"].values()]
    assert HEADERS.keys() == {key for answer in answers for key in answer.get("headers", {})}
