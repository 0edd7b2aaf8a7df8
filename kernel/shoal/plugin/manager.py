"""The plugin manager: the configured set, each plugin's section, and what they register. One for each application."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pluggy
from msgspec import Struct

from shoal.config.loader import Loaded
from shoal.config.sections import KERNEL_SECTIONS, Elsewhere, OwnedSection, nearest, present, settings_of, validate
from shoal.config.settings import PluginsSettings
from shoal.errors import ConfigError
from shoal.plugin import hookspecs
from shoal.plugin.components import Components
from shoal.plugin.context import Lifecycle, PluginContext, context_of
from shoal.plugin.discovery import Candidate, SectionMistake, discover, got, named_by_runtime_type, provides_store
from shoal.plugin.fit import check_component
from shoal.plugin.hints import check_read, runtime_hint, store_hint
from shoal.plugin.interfaces import (
    Agent,
    Authenticator,
    Component,
    Ingress,
    Networking,
    Observer,
    Policy,
    Renewal,
    Resources,
    Runtime,
    Store,
)
from shoal.plugin.spelling import unmarked


class PluginManager:
    """The enabled plugins of one application.

    Args:
        loaded: the configuration file, parsed.
        extra: plugin objects by name, besides the installed ones.

    Attributes:
        settings: the kernel's own sections.
        warnings: what the file says without effect, and what is named like a hook and is none, one line each.

    Raises ConfigError: an unknown or broken plugin that is asked for, or any problem of the configuration.
    """

    def __init__(self, loaded: Loaded, extra: Mapping[str, Any] | None = None) -> None:
        found = discover(extra or {})
        self._enabled, self._broken = _choose(loaded.raw, found)
        for candidate in self._enabled:
            candidate.enable()
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        for candidate in self._enabled:
            candidate.register_with(self._pluggy)
        self.warnings = [line for each in self._enabled for line in unmarked(each.name, each.plugin)]
        self._sections = validate(loaded.raw, self._owned(), _OwnedElsewhere(found, self._enabled), self.warnings)
        check_read(loaded.raw, found.values(), self._enabled)
        self._raw, self._found = loaded.raw, found
        self._source = loaded.source
        self.settings = settings_of(self._sections)

    @property
    def enabled(self) -> list[str]:
        """Names of the enabled plugins, sorted."""
        return [candidate.name for candidate in self._enabled]

    def context(self, lifecycle: Lifecycle, agents: Mapping[str, Agent] | None = None) -> PluginContext:
        """What plugins are given."""
        return PluginContext(self.settings, self._sections, lifecycle, self._source, agents)

    def register(self, lifecycle: Lifecycle) -> Components:
        """Ask every enabled plugin for its components. Raises ConfigError."""
        agents: dict[str, Agent] = {}
        context = self.context(lifecycle, agents)
        plugins: dict[int, str] = {}
        gather = functools.partial(self._gather, context=context, plugins=plugins)
        store = self._store(context, plugins)
        agents.update({agent.name: agent for agent in gather("shoal_register_agents", Agent)})
        runtimes = {runtime.name: runtime for runtime in gather("shoal_register_runtimes", Runtime)}
        context.capabilities.update((name, runtime.capabilities) for name, runtime in runtimes.items())
        networking = gather("shoal_register_networking", Networking)
        ingresses = gather("shoal_register_ingresses", Ingress)
        return Components(
            store=store,
            agents=list(agents.values()),
            runtimes=runtimes,
            default_runtime=self._default_runtime(runtimes),
            authenticators=gather("shoal_register_authenticators", Authenticator),
            networking=sorted(networking, key=lambda part: part.name),
            ingresses=sorted(ingresses, key=lambda part: (-part.priority, part.name)),
            renewals=gather("shoal_register_renewals", Renewal),
            observers=gather("shoal_register_observers", Observer),
            policies=sorted(gather("shoal_register_policies", Policy), key=lambda part: part.name),
            resources=gather("shoal_register_resources", Resources),
            plugins=plugins,
        )

    @property
    def slow(self) -> list[str]:
        """One line for each import or hook that held up the start for more than a second."""
        return [line for _, candidate in sorted(self._found.items()) for line in candidate.slow]

    def _owned(self) -> list[OwnedSection]:
        own = [one for candidate in self._enabled for one in candidate.sections()]
        return [*KERNEL_SECTIONS, *(OwnedSection(one.name, one.kind, one.retired) for one in own)]

    def _gather(
        self, hook: str, family: type[Component], *, context: PluginContext, plugins: dict[int, str]
    ) -> list[Any]:
        """The components that a hook's implementations returned, all in one list, no two of one name.

        ``plugins`` records whose each is.
        """
        owners: dict[str, str] = {}
        gathered: list[Component] = []
        for candidate, answer in self._ask(hook, context):
            for part in candidate.parts_of(hook, answer, family):
                check_component(candidate.name, part, family)
                if part.name in owners:
                    both = f"{owners[part.name]!r} and {candidate.name!r}"
                    raise ConfigError(f"plugins {both} both register the {family.__name__.lower()} {part.name!r}")
                owners[part.name] = plugins[id(part)] = candidate.name
                gathered.append(part)
        return gathered

    def _ask(self, hook: str, context: PluginContext) -> Iterator[tuple[Candidate, Any]]:
        """Each plugin's answer, asked one by one so that a failure names its plugin."""
        for candidate in self._enabled:
            others = [plugin for plugin in self._pluggy.get_plugins() if plugin is not candidate.plugin]
            caller = self._pluggy.subset_hook_caller(hook, others)
            answer = candidate.guarded(
                f"hook {hook}", functools.partial(caller, context=context_of(candidate.name, context))
            )
            # pluggy collects the answers of a hook in a list, unless the first one wins; there is one at most.
            yield candidate, (answer[0] if answer else None) if isinstance(answer, list) else answer

    def _store(self, context: PluginContext, plugins: dict[int, str]) -> Store:
        """The store that ``store.type`` names. Raises ConfigError if there is none, or if two have one name."""
        hook = "shoal_register_store"
        stores: dict[str, Store] = {}
        for candidate, answer in self._ask(hook, context):
            if answer is None:
                continue
            if not isinstance(answer, Store):
                problem = f"the hook {hook} must return a Store or None; {got(answer)}"
                raise ConfigError(f"plugin {candidate.name!r}: {problem}")
            check_component(candidate.name, answer, Store)
            if answer.name in stores:
                both = f"{plugins[id(stores[answer.name])]!r} and {candidate.name!r}"
                raise ConfigError(f"plugins {both} both register the store {answer.name!r}")
            stores[answer.name] = answer
            plugins[id(answer)] = candidate.name
        wanted = self.settings.store.type
        if wanted not in stores:
            hint = store_hint(wanted, self._found.values(), self._enabled, stores)
            raise ConfigError(f"store.type: no enabled plugin provides the store {wanted!r}{hint}")
        return stores[wanted]

    def _default_runtime(self, runtimes: Mapping[str, Runtime]) -> str:
        wanted = self.settings.runtime.type
        if wanted is not None and wanted in runtimes:
            return wanted
        if wanted is None and len(runtimes) == 1:
            return next(iter(runtimes))
        if wanted is None and runtimes:
            known = ", ".join(sorted(runtimes))
            raise ConfigError(f"runtime.type: required, because several runtimes are enabled: {known}")
        hint = "".join(f"; {failure}" for failure in self._broken)
        if wanted is None:
            raise ConfigError(f"no enabled plugin provides a runtime; see `shoal plugins`{hint}")
        known = runtime_hint(wanted, self._raw, self._found.values(), self._enabled, runtimes)
        raise ConfigError(f"runtime.type: no enabled plugin provides the runtime {wanted!r}{known}{hint}")


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
    if listed is not None and not provides_store(raw, candidate.name):
        status.enabled = candidate.name in listed
        status.why = "listed in plugins.enabled" if status.enabled else "not listed in plugins.enabled"
    return status


def _choose(raw: Mapping[str, Any], found: Mapping[str, Candidate]) -> tuple[list[Candidate], list[str]]:
    """The plugins to enable, sorted by name, and why others could not be asked whether they are wanted."""
    listed = _listed(raw)
    if listed is not None:
        unknown = [name for name in dict.fromkeys(listed) if name not in found]
        if unknown:
            problems = (
                f"plugins.enabled: no installed plugin is named {name!r}{nearest(name, found)}" for name in unknown
            )
            raise ConfigError("\n".join(problems))
        named = set(listed) | {name for name in found if provides_store(raw, name)}
        return [found[name] for name in sorted(named)], []
    chosen: list[Candidate] = []
    broken: list[str] = []
    for name, candidate in sorted(found.items()):
        try:
            if candidate.wanted(raw)[0]:
                chosen.append(candidate)
        except ConfigError as error:
            section = isinstance(error, SectionMistake) and present(raw, error.table)
            if section or _asked_for_by_name(raw, name):
                raise
            broken.append(str(error))
    return chosen, broken


def _asked_for_by_name(raw: Mapping[str, Any], name: str) -> bool:
    return name in raw or provides_store(raw, name) or named_by_runtime_type(raw, name)


def _listed(raw: Mapping[str, Any]) -> list[str] | None:
    """``[plugins] enabled``, which decides what may be in the rest of the file. Raises ConfigError."""
    table = raw.get("plugins", {})
    section = OwnedSection("plugins", PluginsSettings)
    kept = {"plugins": table} if isinstance(table, dict) else {"plugins": {"enabled": table}}
    settings = validate(kept, [section], {})[PluginsSettings]
    assert isinstance(settings, PluginsSettings)  # noqa: S101 - it is keyed by its type
    return settings.enabled


class _OwnedElsewhere(Mapping[str, Elsewhere]):
    """Tables of plugins that are installed, work, and are not enabled; those are imported when it is first asked."""

    def __init__(self, found: Mapping[str, Candidate], enabled: list[Candidate]) -> None:
        self._others = [candidate for candidate in found.values() if candidate not in enabled]

    @functools.cached_property
    def _tables(self) -> dict[str, Elsewhere]:
        tables: dict[str, Elsewhere] = {}
        for candidate in self._others:
            try:
                tables.update((one.name, Elsewhere(candidate.name, one.idle)) for one in candidate.sections())
            except ConfigError:
                continue
        return tables

    def __getitem__(self, table: str) -> Elsewhere:
        return self._tables[table]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)
