"""The pages of the plugin reference, made of signatures and docstrings: ``make docs`` writes, a test compares them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import msgspec
from msgspec import Struct
from tests.docs.docstrings import Doc, doc_of, line_of, text_of, texts_below
from tests.docs.pages import ROOT
from tests.docs.reference_parts import PAGES, Group, Reference

from shoal.errors import ShoalError

MADE = "<!-- Made by `make docs` from the signatures and docstrings of the code: change those. -->"


def render(page: Reference) -> str:
    """The text of a page."""
    lines = [f"# {page.title}", "", MADE, "", page.intro, ""]
    for group in page.groups:
        lines += [f"## {group.title}", ""]
        if group.module is not None:
            lines += [text_of(inspect.getdoc(group.module) or ""), ""]
        elif group.intro:
            lines += [group.intro, ""]
        for name in group.names:
            lines += [*_member(group, name), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _member(group: Group, name: str) -> Iterator[str]:
    """One public name: a type, a function or a constant."""
    value = getattr(group.source, name)
    if inspect.isfunction(value):
        yield from _function(name, value, level=3)
    elif isinstance(value, type):
        yield from _type(name, value)
    else:
        source, said = texts_below(group.source, value, name)
        yield from (f"### `{name}`", "", f"`{source}`", "", text_of(said))


def _type(name: str, kind: type) -> Iterator[str]:
    doc = doc_of(kind)
    yield from (f"### `{_head(name, kind)}`", "", text_of(doc.text), "")
    if issubclass(kind, Enum):
        yield from _table(("value", "meaning"), _values(kind))
    elif issubclass(kind, Exception):
        yield from _table(("argument", "meaning"), [[f"`{key}`", line_of(said)] for key, said in doc.entries.items()])
    else:
        yield from _table(("name", "type", "default", "meaning"), _fields(kind, doc))
    for method, member in _methods(kind):
        yield from _function(method, member, level=4, abstract=method in getattr(kind, "__abstractmethods__", ()))


def _head(name: str, kind: type) -> str:
    if issubclass(kind, ShoalError):
        return f"{name}{_arguments(kind.__init__, own=True)}: {kind.status}"
    if (
        "__init__" in vars(kind)
        and not issubclass(kind, Struct | Exception)
        and not getattr(kind, "_is_protocol", False)
    ):
        return f"{name}{_arguments(kind.__init__, own=True)}"
    return name


def _values(kind: type[Enum]) -> Iterator[list[str]]:
    for each in kind:
        _, said = texts_below(kind, each, each.name)
        yield [f"`{each.name}`: `{each.value}`", line_of(said)]


def _fields(kind: type, doc: Doc) -> Iterator[list[str]]:
    """A row for every public field or attribute; those of a Struct that is only given by name come with the type."""
    if issubclass(kind, Struct):
        known = {one.name: (_annotation(kind, one.name), _default(one)) for one in msgspec.structs.fields(kind)}
    else:
        own = {name: text for name, text in inspect.get_annotations(kind).items() if not name.startswith("_")}
        known = {
            name: (_plain(text), _shown(vars(kind)[name]) if name in vars(kind) else "") for name, text in own.items()
        }
        known.update({name: (_set_by_init(kind, name), "") for name in doc.entries if name not in known})
    for name, (type_, default) in known.items():
        yield [f"`{name}`", f"`{type_}`" if type_ else "", default, line_of(doc.entries.get(name, ""))]


def _set_by_init(kind: type, name: str) -> str:
    init = inspect.signature(kind.__init__).parameters if "__init__" in vars(kind) else {}  # type: ignore[misc]  # read only
    if name in init:
        return _plain(init[name].annotation)
    for base in kind.__mro__:
        if name in inspect.get_annotations(base):
            return _plain(inspect.get_annotations(base)[name])
    found = re.search(rf"self\.{name}: (.+?) =", inspect.getsource(kind))
    return found[1] if found else ""


def _annotation(kind: type, name: str) -> str:
    for base in kind.__mro__:
        if name in inspect.get_annotations(base):
            return _plain(inspect.get_annotations(base)[name])
    raise KeyError(name)


def _plain(annotation: Any) -> str:
    """An annotation as it is written; a NamedTuple keeps it wrapped."""
    return str(getattr(annotation, "__forward_arg__", annotation))


def _default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        return _shown(field.default)
    if field.default_factory is not msgspec.NODEFAULT:
        return _shown(field.default_factory())
    return "required"


def _shown(value: Any) -> str:
    if inspect.isfunction(value):
        return "a function that does nothing"
    if isinstance(value, frozenset) and value:
        return "`frozenset({" + ", ".join(repr(each) for each in sorted(value)) + "})`"
    if isinstance(value, Struct):
        return f"`{type(value).__name__}()`"  # with the defaults of its own fields
    return f"`{value!r}`"


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
            yield name, member


def _function(name: str, member: Any, *, level: int, abstract: bool = False) -> Iterator[str]:
    if isinstance(member, property):
        yield f"{'#' * level} `{name} -> {member.fget.__annotations__['return']}`, a property"
    else:
        head = "async " if inspect.iscoroutinefunction(member) else ""
        yield f"{'#' * level} `{head}{name}{_arguments(member)}`{', must be implemented' if abstract else ''}"
    doc = doc_of(member)
    yield from ("", text_of(doc.text), "")
    yield from _table(("argument", "meaning"), [[f"`{key}`", line_of(said)] for key, said in doc.entries.items()])
    if doc.after:
        yield from (text_of(doc.after), "")


def _arguments(function: Any, *, own: bool = False) -> str:
    """A signature as it is written, without ``self``; without the result if ``own``, which is a constructor's."""
    found = inspect.signature(function)
    shown = [each for each in found.parameters.values() if each.name != "self"]
    bare = inspect.Signature([each.replace(annotation=_Written(each.annotation)) for each in shown])
    result = "" if own or found.return_annotation is found.empty else f" -> {_plain(found.return_annotation)}"
    return f"{bare}{result}"


class _Written:
    """An annotation that shows in a signature as it is written, without quotes."""

    def __init__(self, annotation: Any) -> None:
        self._text = _plain(annotation)

    def __repr__(self) -> str:
        return self._text


def _table(head: tuple[str, ...], rows: Iterable[list[str]]) -> Iterator[str]:
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    if lines:
        yield from (f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |", *lines, "")


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        (ROOT / "docs" / page.file).write_text(render(page), encoding="utf-8")


if __name__ == "__main__":
    main()
