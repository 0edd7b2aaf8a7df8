"""Readers: walk a decoded JSON value beside the Struct it should become, leniently, and note every failure.

msgspec stops at the first failure and knows only exact types and names. A reader, compiled once for each type from
`msgspec.inspect`, takes the wire's leniencies (docs/wire/api.md section 1) and finds all problems at once, in the order
of the fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from msgspec import inspect

from shoal.errors import FieldProblem
from shoal.http import coerce
from shoal.http.coerce import Mismatch
from shoal.models.secret import Secret

N = TypeVar("N", int, float)

MAX_PROBLEMS = 100
"""Reported at once."""
Loc = tuple[str | int, ...]
Reader = Callable[[Any, Loc, list[FieldProblem]], Any]
"""``reader(value, loc, problems)``: the typed value; if anything was wrong, None and at least one more problem."""


def reader_of(kind: Any) -> Reader:
    """The reader of a type. Raises TypeError, with struct and field, for a type that a body cannot hold."""
    return _compile(inspect.type_info(kind), FieldPlace())


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


class FieldPlace(NamedTuple):
    """Where in a type a reader is compiled: for messages, and to find a type that holds itself."""

    text: str = ""
    within: tuple[type, ...] = ()

    def refuse(self, what: str) -> TypeError:
        return TypeError(f"{self.text or 'the body'}: a body cannot hold {what}")


def _compile(info: inspect.Type, place: FieldPlace) -> Reader:
    match bare(info):
        case inspect.StructType() as struct:
            return _struct(struct, place)
        case inspect.ListType() as items:
            return _list(items, place)
        case inspect.DictType() as values:
            return _dict(values, place)
        case inspect.UnionType() as union:
            return _optional(union, place)
        case inspect.AnyType():
            return lambda value, loc, problems: value
        case plain:
            return _scalar(_converter(plain, place))


def _converter(info: inspect.Type, place: FieldPlace) -> Callable[[Any], Any]:
    """From a decoded value to a scalar; raises Mismatch."""
    match info:
        case inspect.StrType():
            return lambda value: _text(info, value)
        case inspect.IntType():
            return lambda value: _bounded(info, coerce.integer(value))
        case inspect.FloatType():
            return lambda value: _bounded(info, coerce.number(value))
        case inspect.BoolType():
            return coerce.boolean
        case inspect.DateTimeType():
            return coerce.moment
        case inspect.LiteralType():
            return lambda value: _one_of(info.values, value)
        case inspect.EnumType():
            members = {member.value: member for member in info.cls}
            return lambda value: members[_one_of(tuple(members), value)]
        case inspect.CustomType(cls=cls) if cls is Secret:
            return lambda value: Secret(_string(value))
    raise place.refuse(_called(info))


def bare(info: inspect.Type) -> inspect.Type:
    """A type without what `msgspec.Meta` says of it for the OpenAPI document: descriptions, titles, examples."""
    return bare(info.type) if isinstance(info, inspect.Metadata) else info


def _called(info: inspect.Type) -> str:
    """A type as its annotation has it."""
    match bare(info):
        case inspect.UnionType(types=types):
            return " | ".join(_called(each) for each in types)
        case inspect.VarTupleType():
            return "tuple"
        case inspect.NoneType():
            return "None"
        case found:
            own: type | None = getattr(found, "cls", None)
            return own.__qualname__ if own else type(found).__name__.removesuffix("Type").lower()


def _scalar(convert: Callable[[Any], Any]) -> Reader:
    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        try:
            return convert(value)
        except Mismatch as mismatch:
            problems.append(problem(loc, mismatch.kind, mismatch.expected, mismatch.ctx))
            return None

    return read


def _struct(info: inspect.StructType, place: FieldPlace) -> Reader:
    if info.cls in place.within:
        raise place.refuse(f"{info.cls.__qualname__}, which holds itself")
    text, within = f"{info.cls.__module__}.{info.cls.__qualname__}", (*place.within, info.cls)
    fields = [
        (
            field.name,
            field.encode_name,
            field.required,
            _compile(field.type, FieldPlace(f"{text}.{field.name}", within)),
        )
        for field in info.fields
    ]
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
        if len(problems) > before:
            return None
        try:
            return info.cls(**given)
        except ValueError as error:  # of its own __post_init__
            problems.append(problem(loc, "value_error", str(error)))
            return None

    return read


def _list(info: inspect.ListType, place: FieldPlace) -> Reader:
    item = _compile(info.item_type, place)

    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        if not isinstance(value, list):
            problems.append(problem(loc, "list_type", "expected a list"))
            return None
        _count(info, value, loc, problems)
        return [item(each, (*loc, index), problems) for index, each in enumerate(value)]

    return read


def _count(info: inspect.ListType | inspect.DictType, value: Any, loc: Loc, problems: list[FieldProblem]) -> None:
    least, most = info.min_length or 0, info.max_length
    if len(value) < least:
        problems.append(problem(loc, "too_short", f"expected at least {least} item(s)", {"min_length": least}))
    if most is not None and len(value) > most:
        problems.append(problem(loc, "too_long", f"expected at most {most} item(s)", {"max_length": most}))


def _dict(info: inspect.DictType, place: FieldPlace) -> Reader:
    if not isinstance(bare(info.key_type), (inspect.StrType, inspect.AnyType)):
        raise place.refuse(f"a dict with keys of {_called(info.key_type)}")
    item = _compile(info.value_type, place)

    def read(value: Any, loc: Loc, problems: list[FieldProblem]) -> Any:
        if not isinstance(value, dict):
            problems.append(problem(loc, "dict_type", "expected an object"))
            return None
        _count(info, value, loc, problems)
        return {key: item(each, (*loc, key), problems) for key, each in value.items()}

    return read


def _optional(info: inspect.UnionType, place: FieldPlace) -> Reader:
    others = [each for each in info.types if not isinstance(each, inspect.NoneType)]
    if len(others) != 1 or len(info.types) != 2:
        raise place.refuse(_called(info))
    reader = _compile(others[0], place)
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


def _bounded(info: inspect.IntType | inspect.FloatType, value: N) -> N:
    """The number, if it keeps what `msgspec.Meta` asks for. Raises Mismatch."""
    at_least(value, info.ge)
    at_most(value, info.le)
    if info.gt is not None and value <= info.gt:
        raise Mismatch("greater_than", f"expected more than {info.gt}", {"gt": info.gt})
    if info.lt is not None and value >= info.lt:
        raise Mismatch("less_than", f"expected less than {info.lt}", {"lt": info.lt})
    if info.multiple_of is not None and value % info.multiple_of:
        raise Mismatch("multiple_of", f"expected a multiple of {info.multiple_of}", {"multiple_of": info.multiple_of})
    return value


def _one_of(allowed: Sequence[Any], value: Any) -> Any:
    if isinstance(value, (bool, list, dict)) or value not in allowed:
        expected = ", ".join(str(each) for each in allowed)
        raise Mismatch("literal_error", f"expected one of {expected}", {"expected": expected})
    return value


def parts(info: inspect.Type) -> Iterable[inspect.Type]:
    """The type and every type inside it."""
    info = bare(info)
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
