"""Whether a component is what its interface asks for: its names, and methods as the kernel calls them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from shoal.errors import ConfigError
from shoal.plugin.interfaces import Component, Runtime

_AWAITABLE = re.compile(r"\b(Awaitable|Coroutine|Future|Task)\b")
_ASYNC_ITERATOR = re.compile(r"\bAsync(Iterator|Iterable|Generator)\b")
_AWAITED: Final = "a coroutine function (`async def`)"
_ITERATES: Final = "an async generator (`async def` with `yield`)"
_RETURNS: Final = "a plain function that returns at once (`def`)"
_BY_NAME = (inspect.Parameter.KEYWORD_ONLY,)
_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def check_component(plugin: str, component: Component, family: type[Component]) -> None:
    """Raises ConfigError, one line per problem, each of which names the plugin and the class."""
    kind = type(component).__name__
    problems = [f"plugin {plugin!r}: {kind}.{problem}" for problem in _problems(component, family)]
    if problems:
        raise ConfigError("\n".join(problems))


def _problems(component: Component, family: type[Component]) -> Iterator[str]:
    for attribute in ("name", "scope") if issubclass(family, Runtime) else ("name",):
        value = getattr(component, attribute, None)
        if not isinstance(value, str) or not value.strip():
            yield f"{attribute} is missing: every {family.__name__} has a {attribute}, a text that is not empty"
    for method, specified in inspect.getmembers(family, inspect.isfunction):
        own = getattr(type(component), method)
        if method.startswith("_") or own is specified or not inspect.isfunction(own):
            continue
        if not _takes(own, specified):
            yield f"{method} must take {inspect.signature(specified)}; it takes {inspect.signature(own)}"
        elif (shape := _shape(own)) != (wanted := _shape(specified)) and (wanted, shape) != (_ITERATES, _RETURNS):
            yield f"{method} must be {wanted}; it is {shape}"


def _shape(function: Callable[..., Any]) -> str:
    """How it is called, in words. A wrapper is what it wraps, and a `def` that says it returns an awaitable will do."""
    inner = inspect.unwrap(function)
    returns = str(inspect.signature(function).return_annotation)
    if any(inspect.iscoroutinefunction(each) for each in (function, inner)) or _AWAITABLE.search(returns):
        return _AWAITED
    if inspect.isasyncgenfunction(inner) or _ASYNC_ITERATOR.search(returns):
        return _ITERATES
    return _RETURNS


def _takes(own: Callable[..., Any], specified: Callable[..., Any]) -> bool:
    """Whether ``own`` can be called with every argument of ``specified``."""
    parameters = inspect.signature(specified).parameters.values()
    places = [None for each in parameters if each.kind in _BY_PLACE]
    names = {each.name: None for each in parameters if each.kind in _BY_NAME}
    try:
        inspect.signature(own).bind(*places, **names)
    except TypeError:
        return False
    return True
