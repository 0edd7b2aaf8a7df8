"""Discovery: which plugins are installed, and what each says of itself.

A plugin that cannot be imported is no error until it is enabled; until then only ``shoal plugins`` tells of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import Distribution, entry_points
from typing import Any, TypeVar

import pluggy

from shoal.config.sections import present
from shoal.config.settings import StoreSettings
from shoal.errors import ConfigError
from shoal.plugin import hookspecs
from shoal.plugin.hookspecs import ConfigSection
from shoal.plugin.install_hint import install_hint
from shoal.plugin.version import check_version

T = TypeVar("T")

HOOKS = [name for name in vars(hookspecs) if name.startswith("shoal_")]
"""Every hook's name, in the order of the specification."""


class Candidate:
    """One installed plugin, imported when it is first asked for something.

    Attributes:
        name: the entry point's name.
        distribution: what brought it; None for an object that was passed in.
    """

    def __init__(self, name: str, load: Callable[[], Any], distribution: Distribution | None = None) -> None:
        self.name = name
        self.distribution = distribution
        self._load = load
        self._plugin: Any = None

    @property
    def plugin(self) -> Any:
        """The plugin object.

        Raises ConfigError if it cannot be imported, lacks a package, or needs another version of the contract.
        """
        if self._plugin is None:
            loaded = self.guarded("import", self._load)
            check_version(self.name, loaded)
            self._plugin = loaded
        return self._plugin

    def hooks(self) -> list[str]:
        """The hooks that it implements. Raises ConfigError as `plugin` does."""
        return [name for name in HOOKS if hasattr(getattr(self.plugin, name, None), "shoal_impl")]

    def call(self, hook: str, **arguments: Any) -> Any:
        """Call one hook of this plugin alone; None if it does not implement it. Raises ConfigError if it fails."""
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        self.register_with(manager)
        results = self.guarded(f"hook {hook}", lambda: getattr(manager.hook, hook)(**arguments))
        return results[0] if isinstance(results, list) and results else results or None

    def register_with(self, manager: pluggy.PluginManager) -> None:
        """Register it. Raises ConfigError that quotes the hook and the argument that do not fit the specification."""
        try:
            manager.register(self.plugin, name=self.name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigError(
                f"plugin {self.name!r} does not fit the hook specifications: {_one_line(error)}"
            ) from error
        except ValueError as error:  # pluggy's word for one object under two names
            raise ConfigError(f"plugin {self.name!r} is the same object as another enabled plugin") from error

    def wanted(self, raw: Mapping[str, Any]) -> tuple[bool, str]:
        """Whether it is enabled when nothing says so, and why. Raises ConfigError as `plugin` does."""
        if provides_store(raw, self.name):
            return True, "named by store.type"
        if "shoal_wanted" in self.hooks():
            wanted = bool(self.call("shoal_wanted", config=raw))
            return wanted, "wanted by the configuration" if wanted else "not wanted by the configuration"
        if _runtime_type(raw) == self.name:
            return True, "named by runtime.type"
        tables = [section.name for section in self.sections() if present(raw, section.name)]
        return bool(tables), f"its section [{tables[0]}] is present" if tables else "not asked for"

    def sections(self) -> list[ConfigSection]:
        """The configuration sections that it owns. Raises ConfigError as `plugin` does."""
        return self.parts_of("shoal_config_sections", self.call("shoal_config_sections"), ConfigSection)

    def parts_of(self, hook: str, answer: Any, kind: type[T]) -> list[T]:
        """What a hook of this plugin returned, as a list. Raises ConfigError if it is no list of ``kind``."""
        parts = [] if answer is None else answer
        if isinstance(parts, list) and all(isinstance(part, kind) for part in parts):
            return parts
        raise ConfigError(f"plugin {self.name!r}: the hook {hook} must return a list of {kind.__name__}")

    def guarded(self, what: str, action: Callable[[], Any]) -> Any:
        """Run ``action``; whatever it raises becomes a ConfigError that names this plugin."""
        try:
            return action()
        except ConfigError:
            raise
        except Exception as error:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and package not in sys.modules:
                raise ConfigError(self._missing(package)) from error
            raise ConfigError(f"plugin {self.name!r} failed in {what}: {type(error).__name__}: {error}") from error

    def _missing(self, package: str) -> str:
        """One line about a package that is not installed, with the extra that brings it, if there is one."""
        line = f"plugin {self.name!r} needs the package {package!r}, which is not installed"
        for requirement in (self.distribution.requires or []) if self.distribution else []:
            match = re.match(r"([A-Za-z0-9._-]+).*\bextra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
            if match and match[1].replace("-", "_").lower() == package.lower():
                assert self.distribution is not None  # noqa: S101 - it has requirements
                return f"{line}: {install_hint(self.distribution, match[2])}"
        return line


def discover(extra: Mapping[str, Any]) -> dict[str, Candidate]:
    """Every installed plugin by name, and the ``extra`` objects. Raises ConfigError if two bear one name."""
    found: dict[str, Candidate] = {}
    for point in entry_points(group=hookspecs.ENTRY_POINT_GROUP):
        candidate = Candidate(point.name, point.load, point.dist)
        if point.name in found and _origin(found[point.name]) != _origin(candidate):
            both = f"{_origin(found[point.name])} and {_origin(candidate)}"
            raise ConfigError(f"two installed plugins are named {point.name!r}: from {both}")
        found[point.name] = candidate
    for name, plugin in extra.items():
        found[name] = Candidate(name, lambda plugin=plugin: plugin)  # type: ignore[misc]  # bound now
    return found


def provides_store(raw: Mapping[str, Any], plugin: str) -> bool:
    """Whether ``store.type`` asks for a plugin: ``sqlite``, which is the default, for the plugin ``sqlite_store``."""
    table = raw.get("store")
    kind = table.get("type") if isinstance(table, dict) else None
    return plugin == f"{StoreSettings().type if kind is None else kind}_store"


def _origin(candidate: Candidate) -> str:
    return "an object passed in" if candidate.distribution is None else str(candidate.distribution.metadata["Name"])


def _runtime_type(raw: Mapping[str, Any]) -> Any:
    runtime = raw.get("runtime")
    return runtime.get("type") if isinstance(runtime, dict) else None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
