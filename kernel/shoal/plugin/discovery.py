"""Discovery: which plugins are installed, and what each says of itself.

A plugin that cannot be imported is no error until it is enabled; until then only ``shoal plugins`` shows it. One
that nobody enabled is imported and asked on a thread of its own, for a bounded time: it does not end the process, and
delays it no longer than that.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from importlib.metadata import Distribution, entry_points
from typing import Any, Final, TypeVar

import pluggy
from msgspec import Struct, inspect

from shoal.config.sections import KERNEL_SECTIONS, present
from shoal.config.settings import StoreSettings
from shoal.errors import ConfigError
from shoal.plugin import hookspecs
from shoal.plugin.hookspecs import ConfigSection
from shoal.plugin.install_hint import install_hint
from shoal.plugin.spelling import HOOKS, check_hooks
from shoal.plugin.version import check_version

T = TypeVar("T")

_KEY: Final = re.compile(r"\w+(\.[\w\[\]-]+)+: ")
_KERNEL_TABLES: Final = frozenset(section.path for section in KERNEL_SECTIONS)
IMPORT_TIMEOUT: Final = 20.0
"""How long a plugin that nobody enabled may take to be imported, or to answer."""
SLOW_SECONDS: Final = 1.0
"""An import or a hook that takes longer is named at start."""


class Candidate:
    """One installed plugin, imported when it is first asked for something.

    Attributes:
        name: the entry point's name.
        distribution: what brought it; None for an object that was passed in.
        slow: one line for each import or hook that took more than a second.
    """

    def __init__(self, name: str, load: Callable[[], Any], distribution: Distribution | None = None) -> None:
        self.name = name
        self.distribution = distribution
        self.slow: list[str] = []
        self._load = load
        self._plugin: Any = None
        self._failure: ConfigError | None = None
        self._patience: float | None = IMPORT_TIMEOUT  # None: as long as it takes

    def enable(self) -> None:
        """It is asked for: from now on it has all the time it wants, on the caller's thread."""
        self._patience = None

    @property
    def plugin(self) -> Any:
        """The plugin object.

        Raises ConfigError if it cannot be imported, lacks a package, or needs another version of the contract.
        """
        if self._failure is not None and self._patience is not None:
            raise self._failure
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
        """Register it. Raises ConfigError that names the hook and the argument that do not fit the specification."""
        check_hooks(self.name, self.plugin)
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
        if named_by_runtime_type(raw, self.name):
            return True, "named by runtime.type"
        tables = [section.name for section in self.sections() if present(raw, section.name)]
        return bool(tables), f"its section [{tables[0]}] is present" if tables else "not asked for"

    def sections(self) -> list[ConfigSection]:
        """The configuration sections that it owns. Raises ConfigError as `plugin` does, and for one that is none."""
        found = self.parts_of("shoal_config_sections", self.call("shoal_config_sections"), ConfigSection)
        for section in found:
            self._check_section(section)
        return found

    def _check_section(self, section: ConfigSection) -> None:
        said = f"plugin {self.name!r}: ConfigSection({section.name!r}, …)"
        if not isinstance(section.name, str) or not all(section.name.split(".")):
            raise ConfigError(f"{said}: the name must be that of a table, such as 'firefly' or 'firefly.lamp'")
        if section.name in _KERNEL_TABLES:
            raise ConfigError(f"{said}: [{section.name}] is the server's own; take another name, such as {self.name!r}")
        kind: Any = section.kind
        if not isinstance(kind, type) or not issubclass(kind, Struct):
            shown = kind.__name__ if isinstance(kind, type) else type(kind).__name__
            raise SectionMistake(f"{said}: the kind must be a msgspec Struct; it is {shown}", section.name)
        try:
            inspect.type_info(kind)
        except Exception as error:  # a name that only a type checker imports, say
            shown = f"{type(error).__name__}: {_one_line(error)}"
            raise SectionMistake(f"{said}: {kind.__name__} cannot be read: {shown}", section.name) from error

    def parts_of(self, hook: str, answer: Any, kind: type[T]) -> list[T]:
        """What a hook of this plugin returned, as a list. Raises ConfigError if it is no list of ``kind``."""
        parts = [] if answer is None else answer
        if isinstance(parts, list) and all(isinstance(part, kind) for part in parts):
            return parts
        raise ConfigError(f"plugin {self.name!r}: the hook {hook} must return a list of {kind.__name__}; {got(parts)}")

    def guarded(self, what: str, action: Callable[[], Any]) -> Any:
        """Run ``action``; whatever it raises, SystemExit included, becomes a ConfigError that names this plugin."""
        begun = time.monotonic()
        try:
            return action() if self._patience is None else self._aside(what, action, self._patience)
        except KeyboardInterrupt:
            raise
        except ConfigError as error:
            if repr(self.name) in str(error):
                raise
            raise ConfigError(self._named(str(error) or f"failed in {what}")) from error
        except BaseException as error:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and package not in sys.modules:
                raise ConfigError(self._missing(package)) from error
            raise ConfigError(f"plugin {self.name!r} failed in {what}: {type(error).__name__}: {error}") from error
        finally:
            took = time.monotonic() - begun
            if took > SLOW_SECONDS:
                self.slow.append(f"plugin {self.name!r} took {took:.1f} s in {what}")

    def _named(self, text: str) -> str:
        """A ConfigError's text with this plugin's name on each line that does not begin with a key of the file."""
        lines = text.splitlines()
        return "\n".join(line if _KEY.match(line) else f"plugin {self.name!r}: {line}" for line in lines)

    def _aside(self, what: str, action: Callable[[], Any], patience: float) -> Any:
        """Run ``action`` on another thread, which is left behind if it takes too long; it is waited for once."""
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(action())
            except BaseException as error:
                outcome.set_exception(error)

        threading.Thread(target=work, name=f"{what} {self.name}", daemon=True).start()
        try:
            return outcome.result(patience)
        except TimeoutError:
            if outcome.done():
                raise  # its own
            self._failure = ConfigError(f"plugin {self.name!r} did not return from {what} within {patience:g} s")
            raise self._failure from None

    def _missing(self, package: str) -> str:
        """One line about a package that is not installed, with the extra that brings it, if there is one."""
        line = f"plugin {self.name!r} needs the package {package!r}, which is not installed"
        for requirement in (self.distribution.requires or []) if self.distribution else []:
            match = re.match(r"([A-Za-z0-9._-]+).*\bextra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
            if match and match[1].replace("-", "_").lower() == package.lower():
                assert self.distribution is not None  # noqa: S101 - it has requirements
                return f"{line}: {install_hint(self.distribution, match[2])}"
        return line


class SectionMistake(ConfigError):
    """A plugin's section cannot be read; where its table is in the file, the start stops for it."""

    def __init__(self, line: str, table: str) -> None:
        super().__init__(line)
        self.table = table


def got(answer: Any) -> str:
    """``it returned a str``: by type, as what it holds may be a secret."""
    if not isinstance(answer, list):
        return f"it returned {_kind(answer)}"
    return f"it returned a list of {', '.join(sorted({_kind(each) for each in answer}))}"


def _kind(value: Any) -> str:
    return f"the class {value.__name__} itself" if isinstance(value, type) else type(value).__name__


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


def named_by_runtime_type(raw: Mapping[str, Any], plugin: str) -> bool:
    """Whether ``runtime.type`` asks for a plugin: by its name, with or without ``_runtime``."""
    runtime = raw.get("runtime")
    kind = runtime.get("type") if isinstance(runtime, dict) else None
    return isinstance(kind, str) and plugin in (kind, f"{kind}_runtime")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
