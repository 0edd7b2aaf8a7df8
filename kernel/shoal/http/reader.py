"""Readers: walk a decoded JSON value beside the Struct it should become, leniently, and note every failure.

msgspec stops at the first failure and knows only exact types and names. A reader, compiled once for each type from
`msgspec.inspect`, takes the wire's leniencies (docs/wire/api.md section 1) and finds all problems at once, in the order
of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import inspect

from shoal.errors import FieldProblem
from shoal.http import coerce
from shoal.http.coerce import Mismatch
from shoal.models.secret import Secret

MAX_PROBLEMS = 100
"""Reported at once."""
Loc = tuple[str | int, ...]
Reader = Callable[[Any, Loc, list[FieldProblem]], Any]
"""``reader(value, loc, problems)``: the typed value; if anything was wrong, None and at least one more problem."""


def reader_of(kind: Any) -> Reader:
    """The reader of a type. Raises TypeError for a type that no request uses."""
    return _compile(inspect.type_info(kind))


def snake_names(kind: Any) -> frozenset[str]:
    """The field names, at any depth, whose spelling differs from the wire's: what msgspec alone would overlook."""
    return frozenset(_snake(inspect.type_info(kind)))


def has_times(kind: Any) -> bool:
    """Whether a time is anywhere inside: msgspec alone would leave one without a zone as it is."""
    return any(isinstance(part, inspect.DateTimeType) for part in parts(inspect.type_info(kind)))


def problem(loc: Loc, kind: str, msg: str, ctx: dict[str, str | int | float] | None = None) -> FieldProblem:
    """One entry of a 422's detail list."""
    return FieldProblem(type=kind, loc=list(loc), msg=msg, ctx=ctx)


class Enough(Exception):
    """More problems than anybody reads were found."""


class Problems(list[FieldProblem]):
    """Those of one body; a body can hold a million, so that the one beyond `MAX_PROBLEMS` ends the reading."""

    def append(self, found: FieldProblem) -> None:
        """Raise Enough if there are enough already."""
        if len(self) >= MAX_PROBLEMS:
            raise Enough
        super().append(found)

    def extend(self, found: Iterable[FieldProblem]) -> None:
        """The same for each."""
        for each in found:
            self.append(each)


def at_least(value: float, minimum: float | None) -> None:
    """Raise Mismatch below ``minimum``."""
    if minimum is not None and value < minimum:
        raise Mismatch("greater_than_equal", f"expected at least {minimum}", {"ge": minimum})


def at_most(value: float, maximum: float | None) -> None:
    """Raise Mismatch above ``maximum``."""
    if maximum is not None and value > maximum:
        raise Mismatch("less_than_equal", f"expected at most {maximum}", {"le": maximum})


def _compile(info: inspect.Type) -> Reader:
    match info:
        case inspect.StructType():
            return _struct(info)
        case inspect.ListType():
            return _list(info)
        case inspect.DictType():
            return _dict(info)
        case inspect.UnionType():
            return _optional(info)
        case inspect.StrType():
            return _scalar(lambda value: _text(info, value))
        case inspect.IntType():
            return _scalar(lambda value: _integer(info, value))
        case inspect.BoolType():
            return _scalar(coerce.boolean)
        case inspect.AnyType():
            return lambda value, loc, problems: value
        case inspect.DateTimeType():
            return _scalar(coerce.moment)
        case inspect.LiteralType():
            return _scalar(lambda value: _literal(info, value))
        case inspect.CustomType(cls=cls) if cls is Secret:
            return _scalar(lambda value: Secret(_string(value)))
    raise TypeError(f"requests cannot hold {info!r}")


def _scalar(convert: Callable[[Any], Any]) -> Reader:
    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        try:
            return convert(value)
        except Mismatch as mismatch:
            problems.append(problem(loc, mismatch.kind, mismatch.expected, mismatch.ctx))
            return None

    return read


def _struct(info: inspect.StructType) -> Reader:
    fields = [(field.name, field.encode_name, field.required, _compile(field.type)) for field in info.fields]
    known = {name for field in info.fields for name in (field.name, field.encode_name)}
    closed = info.forbid_unknown_fields

    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        if not isinstance(value, dict):
            problems.append(problem(loc, "model_attributes_type", "expected an object"))
            return None
        before = len(problems)
        given: dict[str, Any] = {}
        for name, wire, required, reader in fields:
            sent_as = wire if wire in value else name
            if sent_as in value:
                given[name] = reader(value[sent_as], (*loc, wire), problems)
            elif required:
                problems.append(problem((*loc, wire), "missing", "field required"))
        if closed:
            unknown = (key for key in value if key not in known)
            problems.extend(problem((*loc, key), "extra_forbidden", "unknown field") for key in unknown)
        return info.cls(**given) if len(problems) == before else None

    return read


def _list(info: inspect.ListType) -> Reader:
    item = _compile(info.item_type)
    least = info.min_length or 0

    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        if not isinstance(value, list):
            problems.append(problem(loc, "list_type", "expected a list"))
            return None
        if len(value) < least:
            problems.append(problem(loc, "too_short", f"expected at least {least} item(s)", {"min_length": least}))
        return [item(each, (*loc, index), problems) for index, each in enumerate(value)]

    return read


def _dict(info: inspect.DictType) -> Reader:
    item = _compile(info.value_type)

    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        if not isinstance(value, dict):
            problems.append(problem(loc, "dict_type", "expected an object"))
            return None
        return {key: item(each, (*loc, key), problems) for key, each in value.items()}

    return read


def _optional(info: inspect.UnionType) -> Reader:
    others = [each for each in info.types if not isinstance(each, inspect.NoneType)]
    if len(others) != 1 or len(info.types) != 2:
        raise TypeError(f"requests cannot hold {info!r}")
    reader = _compile(others[0])
    return lambda value, loc, problems: None if value is None else reader(value, loc, problems)


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise Mismatch("string_type", "expected a string")
    return value


def _text(info: inspect.StrType, value: Any) -> str:
    text = _string(value)
    if info.min_length is not None and len(text) < info.min_length:
        least = info.min_length
        raise Mismatch("string_too_short", f"expected at least {least} character(s)", {"min_length": least})
    if info.max_length is not None and len(text) > info.max_length:
        most = info.max_length
        raise Mismatch("string_too_long", f"expected at most {most} characters", {"max_length": most})
    if info.pattern is not None and re.search(info.pattern, text) is None:
        raise Mismatch("string_pattern_mismatch", f"expected text matching {info.pattern}", {"pattern": info.pattern})
    return text


def _integer(info: inspect.IntType, value: Any) -> int:
    whole = coerce.integer(value)
    at_least(whole, info.ge)
    at_most(whole, info.le)
    return whole


def _literal(info: inspect.LiteralType, value: Any) -> Any:
    if value not in info.values or isinstance(value, bool):
        expected = ", ".join(str(each) for each in info.values)
        raise Mismatch("literal_error", f"expected one of {expected}", {"expected": expected})
    return value


def parts(info: inspect.Type) -> Iterable[inspect.Type]:
    """The type and every type inside it."""
    yield info
    match info:
        case inspect.StructType():
            inner = [field.type for field in info.fields]
        case inspect.ListType():
            inner = [info.item_type]
        case inspect.DictType():
            inner = [info.value_type]
        case inspect.UnionType():
            inner = list(info.types)
        case _:
            inner = []
    for each in inner:
        yield from parts(each)


def _snake(info: inspect.Type) -> Iterable[str]:
    for part in parts(info):
        if isinstance(part, inspect.StructType):
            yield from (field.name for field in part.fields if field.name != field.encode_name)
