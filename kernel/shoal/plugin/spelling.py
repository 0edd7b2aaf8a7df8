"""Whether what looks like a hook of a plugin is one: marked, and with a name and arguments that there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

from shoal.config.sections import nearest
from shoal.errors import ConfigError
from shoal.plugin import hookspecs

HOOKS: Final = [name for name in vars(hookspecs) if name.startswith("shoal_")]
"""Every hook's name, in the order of the specification."""
_MARK: Final = "shoal_impl"
_REGISTERS: Final = "shoal_register_"


def check_hooks(plugin: str, module: Any) -> None:
    """Raises ConfigError, one line per problem, for a marked function that is no hook, or takes what no hook gives."""
    problems = [
        problem
        for name, function in _functions(module)
        if isinstance(mark := getattr(function, _MARK, None), dict)
        for problem in _problems(mark.get("specname") or name, function)
    ]
    if problems:
        raise ConfigError("\n".join(f"plugin {plugin!r}: {problem}" for problem in problems))


def unmarked(plugin: str, module: Any) -> list[str]:
    """One line for each function that is named like a hook and is none, as ``@hookimpl`` is missing."""
    lines: list[str] = []
    for name, function in _functions(module):
        if hasattr(function, _MARK) or not (name in HOOKS or name.startswith(_REGISTERS)):
            continue
        also = "" if name in HOOKS else f", and no hook has this name{nearest(name, HOOKS)}"
        lines.append(f"plugin {plugin!r}: {name} is never called: it is not marked with @hookimpl{also}")
    return lines


def _functions(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in dir(module):
        try:
            found = getattr(module, name)
        except Exception:  # noqa: S112 - a property of the plugin's own; no hook is one
            continue
        if inspect.isroutine(found):
            yield name, found


def _problems(hook: str, function: Callable[..., Any]) -> Iterator[str]:
    if hook not in HOOKS:
        yield f"no hook is named {hook!r}{nearest(hook, HOOKS)}"
        return
    given = inspect.signature(getattr(hookspecs, hook)).parameters
    for own in inspect.signature(function).parameters.values():
        needed = own.default is own.empty and own.kind not in (own.VAR_POSITIONAL, own.VAR_KEYWORD)
        if needed and own.name not in given:
            takes = f"it may take {', '.join(given)}" if given else "it takes none"
            yield f"the hook {hook} has no argument {own.name!r}; {takes}"
    if inspect.iscoroutinefunction(function):
        yield f"the hook {hook} must be a plain `def`; it is an `async def`: open things in a component's `start`"
