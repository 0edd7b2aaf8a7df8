"""Validates a parsed file against the sections that the kernel and the enabled plugins own.

All problems are found at once, each a line with the key's path; no value is ever repeated, for it may be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, inspect

from shoal.config import retired
from shoal.config.settings import Settings
from shoal.errors import ConfigError
from shoal.models.secret import decode_hook


class OwnedSection(Struct, frozen=True):
    """A table and one type that reads it; a table may have several owners, and each reads its own keys.

    Attributes:
        retired: key that is not read any more → why; in a file it is a warning.
    """

    path: str
    kind: type[Struct]
    retired: Mapping[str, str] = {}


class Elsewhere(Struct, frozen=True):
    """Who owns a table that no enabled plugin owns.

    Attributes:
        plugin: name of the installed, disabled plugin.
        idle: the table may stand in the file all the same; it is a warning.
    """

    plugin: str
    idle: bool = False


KERNEL_SECTIONS = [
    OwnedSection(field.name, field.type, retired.KERNEL_KEYS.get(field.name, {}))
    for field in msgspec.structs.fields(Settings)
]


def validate(
    raw: Mapping[str, Any],
    sections: Iterable[OwnedSection],
    elsewhere: Mapping[str, Elsewhere],
    warnings: list[str] | None = None,
) -> dict[type[Struct], Struct]:
    """Each section's Struct by its type.

    Args:
        sections: every section with an owner.
        elsewhere: dotted path of a table that an installed but disabled plugin owns → whose it is.
        warnings: what is in the file without effect is added here, one line each.

    Raises ConfigError that lists every problem, one a line.
    """
    sections = list(sections)
    problems: list[str] = []
    warnings = [] if warnings is None else warnings
    tables = {prefix for section in sections for prefix in _prefixes(section.path)}
    _unowned(raw, tables, elsewhere, problems, warnings)
    for path in sorted(tables):
        _unknown_keys(raw, path, sections, elsewhere, problems, warnings)
    read = {section.kind: _section(raw, section, problems) for section in sections}
    if problems:
        raise ConfigError("\n".join(problems))
    return {kind: value for kind, value in read.items() if value is not None}


def settings_of(read: Mapping[type[Struct], Struct]) -> Settings:
    """The kernel's own sections, out of what `validate` returned."""
    kept: dict[str, Any] = {section.path: read[section.kind] for section in KERNEL_SECTIONS}
    return Settings(**kept)


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if something known is like it, else what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names) or 'none'}"


def present(raw: Mapping[str, Any], path: str) -> bool:
    """Whether the file has the table at a dotted path, or something in its place."""
    table: Any = raw
    for part in path.split("."):
        if not isinstance(table, Mapping) or part not in table:
            return False
        table = table[part]
    return True


def _prefixes(path: str) -> list[str]:
    """``a.b.c`` → ``a``, ``a.b``, ``a.b.c``: whoever owns a table knows that those around it are tables."""
    parts = path.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _unowned(
    raw: Mapping[str, Any],
    tables: set[str],
    elsewhere: Mapping[str, Elsewhere],
    problems: list[str],
    warnings: list[str],
) -> None:
    for table in raw:
        if table in tables:
            continue
        owner = _owner_of(raw, table, elsewhere)
        if owner is not None and owner.idle:
            warnings.append(f"[{table}]: ignored; it belongs to the plugin {owner.plugin!r}, which is not in use")
        elif owner is not None:
            problems.append(f"[{table}]: belongs to the plugin {owner.plugin!r}, which is not enabled")
        elif table in retired.IGNORED_SECTIONS:
            warnings.append(f"[{table}]: ignored; {retired.IGNORED_SECTIONS[table]}")
        elif table in retired.RENAMED_SECTIONS:
            problems.append(f"[{table}]: renamed: write [{retired.RENAMED_SECTIONS[table]}], with the same keys")
        elif table in retired.REFUSED_SECTIONS:
            problems.append(f"[{table}]: {retired.REFUSED_SECTIONS[table]}")
        else:
            tops = [path for path in tables if "." not in path]
            problems.append(f"[{table}]: no enabled plugin owns this section{nearest(table, tops)}")


def _owner_of(raw: Mapping[str, Any], path: str, elsewhere: Mapping[str, Elsewhere]) -> Elsewhere | None:
    """The disabled plugin that owns the table at a dotted path, or one inside it that the file has."""
    inner = (table for table in sorted(elsewhere) if table.startswith(f"{path}.") and present(raw, table))
    return elsewhere.get(path) or next((elsewhere[table] for table in inner), None)


def _unknown_keys(
    raw: Mapping[str, Any],
    path: str,
    sections: list[OwnedSection],
    elsewhere: Mapping[str, Elsewhere],
    problems: list[str],
    warnings: list[str],
) -> None:
    table = _dig(raw, path)
    if not isinstance(table, dict):
        problems.append(f"{path}: expected a table")
        return
    owners = [section for section in sections if section.path == path]
    known = {field.encode_name for section in owners for field in msgspec.structs.fields(section.kind)}
    known |= {
        section.path[len(path) + 1 :].partition(".")[0] for section in sections if section.path.startswith(f"{path}.")
    }
    given_up = {key: why for section in owners for key, why in section.retired.items()}
    for key in table:
        if key in known:
            continue
        owner = _owner_of(raw, f"{path}.{key}", elsewhere)
        if key in given_up:
            warnings.append(f"{path}.{key}: ignored; {given_up[key]}")
        elif owner is not None:
            problems.append(f"[{path}.{key}]: belongs to the plugin {owner.plugin!r}, which is not enabled")
        else:
            problems.append(f"{path}.{key}: unknown key{nearest(key, known)}")


def _dig(raw: Any, path: str) -> Any:
    """The table at a dotted path; an absent one is empty, something else in the way is returned as it is."""
    for part in path.split("."):
        if not isinstance(raw, dict):
            return {}
        raw = raw.get(part, {})
    return raw


def _section(raw: Mapping[str, Any], section: OwnedSection, problems: list[str]) -> Struct | None:
    table = _dig(raw, section.path)
    return _struct(section.kind, table, section.path, problems, closed=False) if isinstance(table, dict) else None


def _struct(
    kind: type[Struct], table: dict[str, Any], path: str, problems: list[str], *, closed: bool = True
) -> Struct | None:
    before = len(problems)
    given = {}
    fields = msgspec.structs.fields(kind)
    for field in fields:
        if field.encode_name in table:
            where = f"{path}.{field.encode_name}"
            given[field.name] = _value(
                inspect.type_info(field.type), field.type, table[field.encode_name], where, problems
            )
        elif field.required:
            problems.append(f"{path}.{field.encode_name}: required")
    if closed:
        known = {field.encode_name for field in fields}
        problems.extend(f"{path}.{key}: unknown key{nearest(key, known)}" for key in table if key not in known)
    if len(problems) > before:
        return None
    try:
        return kind(**given)
    except ValueError as error:  # a section's own __post_init__
        problems.append(f"{path}: {error}")
        return None


def _value(info: inspect.Type, kind: Any, value: Any, path: str, problems: list[str]) -> Any:
    """One value; tables inside are walked, so that every problem in them is found and named."""
    if isinstance(info, inspect.Metadata):  # a description, say
        return _value(info.type, kind, value, path, problems)
    if isinstance(info, inspect.UnionType):
        inner = [each for each in info.types if not isinstance(each, inspect.NoneType)]
        if len(inner) == 1 and isinstance(inner[0], (inspect.StructType, inspect.ListType)):
            info = inner[0]
    if isinstance(info, inspect.StructType) and isinstance(value, dict):
        return _struct(info.cls, value, path, problems)
    if (
        isinstance(info, inspect.ListType)
        and isinstance(info.item_type, inspect.StructType)
        and isinstance(value, list)
    ):
        item = info.item_type
        return [_value(item, item.cls, each, f"{path}[{index}]", problems) for index, each in enumerate(value)]
    try:
        return msgspec.convert(value, kind, strict=False, dec_hook=decode_hook)
    except msgspec.ValidationError as error:
        problems.append(f"{path}{_inside(str(error))}: {_expected(info, str(error))}")
        return None


def _inside(said: str) -> str:
    """``[2]``: which item of a list msgspec found wrong; it does not name the keys of a table."""
    match = re.search(r" - at `\$((?:\[\d+\])+)`$", said)
    return match[1] if match else ""


def _expected(info: inspect.Type, said: str) -> str:
    """What would fit, in msgspec's words where they do not repeat the value."""
    if isinstance(info, inspect.LiteralType):
        return "expected one of " + ", ".join(map(repr, info.values))
    text = said.partition(" - at ")[0]
    return (
        f"expected {text.removeprefix('Expected ')}"
        if text.startswith("Expected ")
        else "not a value of the right form"
    )
