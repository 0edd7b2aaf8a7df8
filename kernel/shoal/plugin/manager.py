"""The plugin manager: the configured set, each plugin's section, and what they register. One for each application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pluggy
from msgspec import Struct

from shoal.config.loader import Loaded
from shoal.config.sections import KERNEL_SECTIONS, OwnedSection, nearest, settings_of, validate
from shoal.config.settings import PluginsSettings
from shoal.errors import ConfigError
from shoal.plugin import hookspecs
from shoal.plugin.components import Components
from shoal.plugin.context import Lifecycle, PluginContext
from shoal.plugin.discovery import Candidate, discover
from shoal.plugin.interfaces import Runtime

T = TypeVar("T")


class PluginManager:
    """The enabled plugins of one application.

    Args:
        loaded: the configuration file, parsed.
        extra: plugin objects by name, besides the installed ones.

    Raises ConfigError: an unknown or broken plugin that is asked for, or any problem of the configuration.
    """

    def __init__(self, loaded: Loaded, extra: Mapping[str, Any] | None = None) -> None:
        found = discover(extra or {})
        self._enabled = [found[name] for name in sorted(_choose(loaded.raw, found))]
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        for candidate in self._enabled:
            candidate.register_with(self._pluggy)
        self._sections = validate(loaded.raw, self._owned(), _owned_elsewhere(found, self._enabled))
        self.settings = settings_of(self._sections)

    @property
    def enabled(self) -> list[str]:
        """Names of the enabled plugins, sorted."""
        return [candidate.name for candidate in self._enabled]

    def register(self, lifecycle: Lifecycle) -> Components:
        """Ask every enabled plugin for its components. Raises ConfigError."""
        context = PluginContext(self.settings, self._sections, lifecycle)
        store = next((made for made in self._ask("shoal_register_store", context) if made is not None), None)
        runtimes = _by_name(self._gather("shoal_register_runtimes", context))
        ingresses = self._gather("shoal_register_ingresses", context)
        return Components(
            store=store,
            runtimes=runtimes,
            default_runtime=_default_runtime(self.settings.runtime.type, runtimes),
            authenticators=self._gather("shoal_register_authenticators", context),
            networking=sorted(self._gather("shoal_register_networking", context), key=lambda part: part.name),
            ingresses=sorted(ingresses, key=lambda part: (-part.priority, part.name)),
            renewals=self._gather("shoal_register_renewals", context),
            observers=self._gather("shoal_register_observers", context),
        )

    def _owned(self) -> list[OwnedSection]:
        own = [OwnedSection(one.name, one.kind) for candidate in self._enabled for one in candidate.sections()]
        return [*KERNEL_SECTIONS, *own]

    def _gather(self, hook: str, context: PluginContext) -> list[Any]:
        """The components that a hook's implementations returned, all in one list."""
        return [part for parts in self._ask(hook, context) for part in parts or []]

    def _ask(self, hook: str, context: PluginContext) -> list[Any]:
        """Each plugin's answer, asked one by one so that a failure names its plugin."""
        answers = []
        for candidate in self._enabled:
            others = [plugin for plugin in self._pluggy.get_plugins() if plugin is not candidate.plugin]
            caller = self._pluggy.subset_hook_caller(hook, others)
            answer = candidate.guarded(f"hook {hook}", lambda caller=caller: caller(context=context))  # type: ignore[misc]  # bound now
            answers += answer if isinstance(answer, list) else [answer]
        return answers


class PluginStatus(Struct, kw_only=True):
    """One line of ``shoal plugins``.

    Attributes:
        why: why it is enabled, or not.
        failure: what keeps it from working, if anything does.
    """

    name: str
    distribution: str | None
    version: str | None
    enabled: bool
    why: str
    failure: str | None
    hooks: list[str]
    sections: list[str]


def survey(loaded: Loaded, extra: Mapping[str, Any] | None = None) -> list[PluginStatus]:
    """Every plugin that is installed, whether it works or not. Raises ConfigError for two of one name."""
    found = discover(extra or {})
    return [_status(candidate, loaded.raw) for _, candidate in sorted(found.items())]


def _status(candidate: Candidate, raw: Mapping[str, Any]) -> PluginStatus:
    origin = candidate.distribution
    status = PluginStatus(
        name=candidate.name,
        distribution=origin.metadata["Name"] if origin else None,
        version=origin.version if origin else None,
        enabled=False,
        why="",
        failure=None,
        hooks=[],
        sections=[],
    )
    listed = _listed(raw)
    try:
        status.hooks = candidate.hooks()
        status.sections = [section.name for section in candidate.sections()]
        status.enabled, status.why = candidate.wanted(raw)
    except ConfigError as error:
        status.failure = str(error)
    if listed is not None:
        status.enabled = candidate.name in listed
        status.why = "listed in plugins.enabled" if status.enabled else "not listed in plugins.enabled"
    return status


def _choose(raw: Mapping[str, Any], found: Mapping[str, Candidate]) -> set[str]:
    """The names of the plugins to enable."""
    listed = _listed(raw)
    if listed is not None:
        for name in listed:
            if name not in found:
                raise ConfigError(f"plugins.enabled: no installed plugin is named {name!r}{nearest(name, found)}")
        return set(listed)
    chosen = set()
    for name, candidate in found.items():
        try:
            if candidate.wanted(raw)[0]:
                chosen.add(name)
        except ConfigError:
            if _asked_for_by_name(raw, name):
                raise
    return chosen


def _asked_for_by_name(raw: Mapping[str, Any], name: str) -> bool:
    runtime = raw.get("runtime")
    return name in raw or (isinstance(runtime, dict) and runtime.get("type") == name)


def _listed(raw: Mapping[str, Any]) -> list[str] | None:
    """``[plugins] enabled``, which decides what may be in the rest of the file. Raises ConfigError."""
    table = raw.get("plugins", {})
    section = OwnedSection("plugins", PluginsSettings)
    kept = {"plugins": table} if isinstance(table, dict) else {"plugins": {"enabled": table}}
    settings = validate(kept, [section], {})[PluginsSettings]
    assert isinstance(settings, PluginsSettings)  # noqa: S101 - it is keyed by its type
    return settings.enabled


def _owned_elsewhere(found: Mapping[str, Candidate], enabled: list[Candidate]) -> dict[str, str]:
    """Tables of plugins that are installed, work, and are not enabled."""
    tables: dict[str, str] = {}
    for candidate in found.values():
        if candidate in enabled:
            continue
        try:
            tables.update((section.name.partition(".")[0], candidate.name) for section in candidate.sections())
        except ConfigError:
            continue
    return tables


def _by_name(runtimes: list[Runtime]) -> dict[str, Runtime]:
    named: dict[str, Runtime] = {}
    for runtime in runtimes:
        if runtime.name in named:
            raise ConfigError(f"two enabled plugins register a runtime named {runtime.name!r}")
        named[runtime.name] = runtime
    return named


def _default_runtime(wanted: str | None, runtimes: Mapping[str, Runtime]) -> str:
    if wanted is not None:
        if wanted not in runtimes:
            raise ConfigError(
                f"runtime.type: no enabled plugin provides the runtime {wanted!r}{nearest(wanted, runtimes)}"
            )
        return wanted
    if len(runtimes) == 1:
        return next(iter(runtimes))
    if not runtimes:
        raise ConfigError("no enabled plugin provides a runtime; see `shoal plugins`")
    raise ConfigError(f"runtime.type: required, because several runtimes are enabled: {', '.join(sorted(runtimes))}")
