"""Mappings and lists that cannot be changed, for what plugins and the kernel hand to one another.

They are dicts and lists in every other way: equal to plain ones, encoded and read as fast. A changed copy is made with
``{**mapping, …}``, ``[*items, …]`` and `msgspec.structs.replace`.
"""

from __future__ import annotations

import functools
from typing import Any, Final, NoReturn, TypeVar

import msgspec
from msgspec import Struct

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict whose methods that change it raise TypeError."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this mapping is read-only: make a changed copy, and replace the struct that holds it")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, _memo: Any) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (dict(self),))


class FrozenList(list[V]):
    """A list whose methods that change it raise TypeError."""

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("this list is read-only: make a changed copy, and replace the struct that holds it")

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __copy__(self) -> FrozenList[V]:
        return self

    def __deepcopy__(self, _memo: Any) -> FrozenList[V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (list(self),))


_set = msgspec.structs.force_setattr

EMPTY_DICT: Final[FrozenDict[Any, Any]] = FrozenDict()
EMPTY_LIST: Final[FrozenList[Any]] = FrozenList()
"""Defaults of fields, which msgspec leaves out of JSON by their identity."""


class Frozen(Struct, frozen=True):
    """A struct that is immutable through and through: its dicts and lists are frozen as it is made."""

    def __post_init__(self) -> None:
        """Freeze what was given; msgspec calls this for decoded and replaced structs, too."""
        freeze_fields(self)


def freeze_fields(struct: Struct) -> None:
    """Freeze the dicts and lists among the fields of a struct that is being made."""
    for name, deep in _containers(type(struct)):
        value = getattr(struct, name)
        kind = type(value)
        if kind is dict:
            _set(struct, name, (freeze(value) if deep else FrozenDict(value)) if value else EMPTY_DICT)
        elif kind is list:
            _set(struct, name, (freeze(value) if deep else FrozenList(value)) if value else EMPTY_LIST)


def freeze(value: Any) -> Any:
    """A value whose dicts and lists, those within included, are frozen."""
    kind = type(value)
    if kind is dict:
        return FrozenDict({key: freeze(each) for key, each in value.items()})
    if kind is list:
        return FrozenList([freeze(each) for each in value])
    return value


@functools.cache
def _containers(kind: type[Struct]) -> tuple[tuple[str, bool], ...]:
    """Names of the fields that may hold a dict or a list, and whether that may hold others."""
    found = ((field.name, str(field.type)) for field in msgspec.structs.fields(kind))
    return tuple((name, "Any" in held) for name, held in found if any(word in held for word in ("dict", "list", "Any")))
