"""docs/configuration.md says what the code says: every key of every section, with its default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from msgspec import NODEFAULT, Struct, inspect
from tests.docs.pages import parts

from shoal.config.sections import KERNEL_SECTIONS
from shoal.plugin.discovery import discover

PAGE = {part.heading: part for part in parts("configuration.md")}


def tables(heading: str, kind: type[Struct]) -> Iterator[tuple[str, type[Struct]]]:
    """A section's own table, and one for each array of tables in it."""
    yield heading, kind
    path = heading.strip("[]")
    for field in msgspec.structs.fields(kind):
        info = inspect.type_info(field.type)
        if isinstance(info, inspect.ListType) and isinstance(info.item_type, inspect.StructType):
            yield from tables(f"[[{path}.{field.encode_name}]]", info.item_type.cls)


def sections() -> Iterator[tuple[str, type[Struct]]]:
    """The kernel's sections, and those of the plugins that come in the same distribution."""
    for section in KERNEL_SECTIONS:
        yield from tables(f"[{section.path}]", section.kind)
    for plugin in discover({}).values():
        if plugin.distribution is not None and plugin.distribution.metadata["Name"] == "shoal":
            for own in plugin.sections():
                yield from tables(f"[{own.name}]", own.kind)


SECTIONS = list(sections())


def default(field: msgspec.structs.FieldInfo) -> str:
    """As the page writes it: TOML in backticks, ``unset`` or ``required``."""
    value: Any = field.default if field.default_factory is NODEFAULT else field.default_factory()
    if value is NODEFAULT:
        return "required"
    return "unset" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize(("heading", "kind"), SECTIONS, ids=[heading for heading, _ in SECTIONS])
def test_every_key_has_a_row_with_its_default(heading: str, kind: type[Struct]) -> None:
    documented = [(row[0], row[1]) for row in PAGE[heading].rows]
    assert sorted(documented) == sorted((f"`{f.encode_name}`", default(f)) for f in msgspec.structs.fields(kind))


@pytest.mark.parametrize(("heading", "kind"), SECTIONS, ids=[heading for heading, _ in SECTIONS])
def test_every_row_says_something(heading: str, kind: type[Struct]) -> None:
    assert [row[0] for row in PAGE[heading].rows if len(row) != 3 or not row[2]] == []


def test_no_section_is_described_that_nobody_owns() -> None:
    assert sorted(heading for heading in PAGE if heading.startswith("[")) == sorted(
        {heading for heading, _ in SECTIONS}
    )
