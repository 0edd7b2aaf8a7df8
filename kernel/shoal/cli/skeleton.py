"""The skeleton of a configuration: every section and key that the kernel and the installed plugins read, commented out.

A line that begins with ``#`` and no space is a key at its default, and may be uncommented as it is. A key without a
default stands in a line that begins with ``# ``, with what it takes. The kernel's tables are open, those of plugins are
commented out, because some plugins are enabled by the presence of their table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import NODEFAULT, Struct, inspect
from msgspec.structs import FieldInfo

from shoal.config.sections import KERNEL_SECTIONS
from shoal.errors import ConfigError
from shoal.plugin.discovery import discover

HEAD = """\
# Every section and key of shoal and of its installed plugins.
#
# A line that begins with "#" and no space is a key at its default: take the "#" away to change it. A line that begins
# with "# " is a key without a default, and says what it takes. docs/configuration.md describes each;
# `shoal check-config` says what is wrong with a file.
"""
ACTIVE = {("server", "host"): '"127.0.0.1"'}
"""Keys that are set: this machine alone, until there is a key."""


def skeleton() -> str:
    """The file. Plugins that cannot be imported are left out."""
    kernel = [section.path for section in KERNEL_SECTIONS]
    parts = [HEAD]
    for path, kinds in _tables().items():
        parts.append("\n".join(_table(path, kinds, is_open=path in kernel)) + "\n")
    return "\n".join(parts)


def _tables() -> dict[str, list[type[Struct]]]:
    """Every table with the types that read it: the kernel's first, a plugin's after the table around it."""
    tables: dict[str, list[type[Struct]]] = {section.path: [section.kind] for section in KERNEL_SECTIONS}
    plugins: dict[str, list[type[Struct]]] = {}
    for candidate in discover({}).values():
        try:
            sections = candidate.sections()
        except ConfigError:
            continue
        for section in sections:
            owned = tables if section.name in tables else plugins
            owned.setdefault(section.name, []).append(section.kind)
    return {**tables, **dict(sorted(plugins.items()))}


def _table(path: str, kinds: Iterable[type[Struct]], *, is_open: bool) -> Iterator[str]:
    fields = {field.encode_name: field for kind in kinds for field in msgspec.structs.fields(kind)}
    required = any(field.required for field in fields.values())
    yield f"{'' if is_open else '# ' if required else '#'}[{path}]"
    inner: list[tuple[str, type[Struct]]] = []
    for name, field in fields.items():
        table = _inner(inspect.type_info(field.type))
        if table is not None:
            brackets, kind = table
            inner.append((brackets.format(f"{path}.{name}"), kind))
        else:
            yield _key(path, name, field, plain=not required)
    for header, kind in inner:
        yield f"# {header}"
        for field in msgspec.structs.fields(kind):
            yield _key(path, field.encode_name, field, plain=False)


def _inner(info: inspect.Type) -> tuple[str, type[Struct]] | None:
    """The header's brackets and the type of a table, or an array of tables, inside a table."""
    if isinstance(info, inspect.UnionType):
        return next(filter(None, map(_inner, info.types)), None)
    if isinstance(info, inspect.StructType):
        return "[{}]", info.cls
    if isinstance(info, inspect.ListType) and isinstance(info.item_type, inspect.StructType):
        return "[[{}]]", info.item_type.cls
    return None


def _key(path: str, name: str, field: FieldInfo, *, plain: bool) -> str:
    value: Any = field.default if field.default_factory is NODEFAULT else field.default_factory()
    takes = _takes(inspect.type_info(field.type))
    if (path, name) in ACTIVE:
        return f"{name} = {ACTIVE[path, name]}"
    if value is NODEFAULT or value is None:
        return f"# {name}: {takes}{'; required' if value is NODEFAULT else ''}"
    return f"{'#' if plain else '# '}{name} = {json.dumps(value, ensure_ascii=False)}  # {takes}"


def _takes(info: inspect.Type) -> str:
    """What a value may be, in words."""
    match info:
        case inspect.UnionType():
            return " or ".join(_takes(each) for each in info.types if not isinstance(each, inspect.NoneType))
        case inspect.LiteralType():
            return "one of " + ", ".join(map(json.dumps, info.values))
        case inspect.IntType() | inspect.FloatType():
            return "integer" + _bounds(info) if isinstance(info, inspect.IntType) else "number" + _bounds(info)
        case inspect.BoolType():
            return "true or false"
        case inspect.ListType():
            return f"list of {_takes(info.item_type)}"
        case inspect.DictType():
            return "table"
        case _:
            return "text"


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    bounds = {"from": info.ge, "above": info.gt, "to": info.le, "below": info.lt}
    return "".join(f" {word} {bound}" for word, bound in bounds.items() if bound is not None)
