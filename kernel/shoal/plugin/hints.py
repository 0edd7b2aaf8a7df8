"""What to do about a configuration that asks for something only a plugin that is not enabled has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shoal.config.sections import nearest
from shoal.errors import ConfigError
from shoal.plugin.discovery import Candidate

READ_BY_PLUGINS: Final = ("server.api_key",)
"""Keys of the kernel's sections that mean nothing unless an enabled plugin acts on them (`ConfigSection.reads`)."""


def check_read(raw: Mapping[str, Any], found: Iterable[Candidate], enabled: Iterable[Candidate]) -> None:
    """Raises ConfigError for a key that is set, not blank, and read by no enabled plugin."""
    read = {key for candidate in enabled for key in _reads(candidate)}
    for key in READ_BY_PLUGINS:
        if key not in read and _is_set(raw, key):
            readers = sorted(candidate.name for candidate in found if key in _reads(candidate))
            raise ConfigError(f"{key}: no enabled plugin reads it{_enable(readers) or '; remove it'}")


def runtime_hint(
    wanted: str,
    raw: Mapping[str, Any],
    found: Iterable[Candidate],
    enabled: Iterable[Candidate],
    runtimes: Iterable[str],
) -> str:
    """The end of the message that no enabled plugin has the runtime: which plugin to enable, or the nearest name."""
    running = {candidate.name for candidate in enabled}
    idle = {one.name: _types(one) for one in found if one.name not in running}
    able = sorted(one.name for one in found if one.name in idle and wanted in {*_types(one, wanted)})
    if able:
        return _enable(able)
    if idle.get(wanted):
        return f"; it is the name of a plugin; did you mean {idle[wanted][0]!r}?"
    return nearest(wanted, {*runtimes, *(name for types in idle.values() for name in types)})


def store_hint(wanted: str, found: Iterable[Candidate], enabled: Iterable[Candidate], stores: Iterable[str]) -> str:
    """The same for ``store.type``: the plugins that are not enabled and have a store, or the nearest name."""
    running = {candidate.name for candidate in enabled}
    idle = [one for one in found if one.name not in running]
    close = nearest(wanted, {*stores, *(name for one in idle for name in _store_types(one))})
    if close.startswith("; did you mean"):
        return close
    return _enable(sorted(one.name for one in idle if wanted in _store_types(one, wanted))) or close


def _store_types(candidate: Candidate, *more: str) -> list[str]:
    """Values of ``store.type`` by which a plugin with a store is enabled."""
    return _asked_by(candidate, "store", [*more, candidate.name.removesuffix("_store")])


def _enable(plugins: list[str]) -> str:
    """``; the plugin 'x' does: add it to plugins.enabled``"""
    names = " or ".join(repr(name) for name in plugins)
    return f"; the plugin {names} is installed and not enabled: add it to plugins.enabled" if plugins else ""


def _reads(candidate: Candidate) -> set[str]:
    try:
        return {key for section in candidate.sections() for key in section.reads}
    except ConfigError:
        return set()


def _types(candidate: Candidate, *more: str) -> list[str]:
    """Values of ``runtime.type`` by which a plugin with runtimes is enabled; its sections' names are tried."""
    return _asked_by(candidate, "runtime", [*more, candidate.name.removesuffix("_runtime")])


def _asked_by(candidate: Candidate, family: str, names: list[str]) -> list[str]:
    """Which names, and names of its sections, in ``runtime.type`` or ``store.type`` enable a plugin that has any."""
    hook = {"runtime": "shoal_register_runtimes", "store": "shoal_register_store"}[family]
    try:
        if hook not in candidate.hooks():
            return []
        names = [*names, *(section.name for section in candidate.sections())]
        return [name for name in dict.fromkeys(names) if candidate.wanted({family: {"type": name}})[0]]
    except ConfigError:
        return []


def _is_set(raw: Mapping[str, Any], key: str) -> bool:
    value: Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return isinstance(value, str) and bool(value.strip())
