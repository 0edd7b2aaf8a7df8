"""The plugin reference is what ``make docs`` makes of the code, and leaves out nothing that is public."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from tests.docs.pages import ROOT, parts
from tests.docs.reference import render
from tests.docs.reference_parts import PAGES, Reference

import shoal.http
from shoal import errors, kit, plugin, testing
from shoal.plugin import interfaces

HEADINGS = [part.heading for page in PAGES for part in parts(page.file)]
TABLES = {
    part.heading.strip("`").partition("(")[0].partition(":")[0]: [row[0].strip("`") for row in part.rows]
    for page in PAGES
    for part in parts(page.file)
}
ELSEWHERE = {"API_VERSION", "hookimpl"}
"""Public names of `shoal.plugin` that have no members: the guide says what they are for."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.file)
def test_the_page_is_what_the_code_says(page: Reference) -> None:
    written = (ROOT / "docs" / page.file).read_text(encoding="utf-8")
    assert written == render(page), "run `make docs`"


@pytest.mark.parametrize(
    "module", [plugin, interfaces, errors, shoal.http, kit, testing], ids=lambda module: module.__name__
)
def test_every_public_name_has_a_heading(module: Any) -> None:
    named = {re.sub(r"^async ", "", heading.strip("`")).partition("(")[0].partition(":")[0] for heading in HEADINGS}
    assert set(module.__all__) - ELSEWHERE - named == set()


def public_types() -> list[type]:
    names = [getattr(module, name) for module in (plugin, interfaces) for name in module.__all__]
    return list(dict.fromkeys(each for each in names if isinstance(each, type)))


@pytest.mark.parametrize("kind", public_types(), ids=lambda kind: kind.__name__)
def test_every_method_stands_with_its_arguments_and_every_field_in_the_table(kind: type) -> None:
    text = section(kind)
    for name, member in vars(kind).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            [heading] = re.findall(rf"^#### `(?:async )?{name}\((.*)\) -> ", text, re.MULTILINE)
            for argument in list(inspect.signature(member).parameters)[1:]:
                assert re.search(rf"\b{argument}: ", heading)
    if issubclass(kind, Struct):
        assert TABLES[kind.__name__] == [field.name for field in msgspec.structs.fields(kind)]


def section(kind: type) -> str:
    """What stands below the heading of a type, its methods included."""
    pages = "\n".join((ROOT / "docs" / page.file).read_text(encoding="utf-8") for page in PAGES)
    found = re.search(rf"^### `{kind.__name__}[`(:].*?(?=^##? |^### )", pages + "\n## ", re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0]


def test_every_type_of_a_field_or_an_argument_is_on_the_pages_too() -> None:
    words = {
        word for page in PAGES for part in parts(page.file) for row in part.rows for word in re.findall(r"\w+", row[1])
    }
    words |= {word for heading in HEADINGS for word in re.findall(r"[:>\[|] ?([A-Z]\w+)", heading)}
    home = {name for name in words if defined_by_shoal(name)}
    assert home - set(TABLES) == set()


def defined_by_shoal(name: str) -> bool:
    """Whether it is a type of the modules that plugins may import."""
    from shoal.models import plan, pools, requests, sandbox, secret, workload

    return any(
        getattr(getattr(module, name, None), "__module__", "").startswith("shoal.")
        for module in (plan, pools, requests, sandbox, secret, workload, interfaces)
    )


@pytest.mark.parametrize(
    "name",
    ["WorkloadPlan", "Workload", "SandboxRecord", "Capabilities", "LogQuery", "Endpoint", "Principal", "AgentFiles"],
)
def test_no_field_of_what_plugins_meet_first_is_without_a_meaning(name: str) -> None:
    [part] = [part for page in PAGES for part in parts(page.file) if part.heading == f"`{name}`"]
    assert [row[0] for row in part.rows if not row[3]] == []
