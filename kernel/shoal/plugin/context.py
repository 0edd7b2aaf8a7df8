"""What a plugin is given when the kernel asks it for its components."""

from __future__ import annotations

import copy
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

from shoal.config.settings import DEFAULT_AGENT, NO_AGENT
from shoal.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from msgspec import Struct

    from shoal.config.settings import Settings
    from shoal.models.sandbox import SandboxRecord
    from shoal.plugin.interfaces.agent import Agent
    from shoal.plugin.interfaces.renewal import Access
    from shoal.plugin.interfaces.runtime import Capabilities

T = TypeVar("T")
Unless: TypeAlias = "Callable[[SandboxRecord], bool]"
"""Judged when the operation's turn has come, on the record as it then is: True means that it is not wanted any more."""


class Lifecycle(Protocol):
    """The part of the lifecycle that plugins may use, once the server runs."""

    def find(self, sandbox_id: str) -> SandboxRecord | None:
        """The record as it is now, from memory; treat it as read-only."""
        ...

    def known(self, sandbox_id: str) -> bool:
        """Whether there is a record of it; also of one that waits in a pool, which `find` and `records` leave out."""
        ...

    def records(self) -> Iterator[SandboxRecord]:
        """Every record at this moment, in no particular order."""
        ...

    def accessed(self, access: Access) -> None:
        """Notifies every renewal plugin of an access that did not come through this server. Returns at once."""
        ...

    async def renew(self, sandbox_id: str, expires_at: datetime, *, only_later: bool = False) -> datetime:
        """Move the expiry. With ``only_later`` an earlier time changes nothing. Returns the expiry in force.

        Raises NotFound, Conflict (it never expires, or is on its way out) and InvalidRequest (not in the future).
        """
        ...

    async def delete(self, sandbox_id: str, *, reason: str = "DELETED", unless: Unless | None = None) -> None:
        """Delete it, for ``reason``, unless that is forbidden; returns when it is gone. Raises NotFound."""
        ...

    async def pause(self, sandbox_id: str, *, unless: Unless | None = None) -> None:
        """Pause it, unless that is forbidden. Raises NotFound, Conflict, NotSupported."""
        ...

    async def resume(self, sandbox_id: str) -> None:
        """Resume it. Raises NotFound, Conflict, NotSupported."""
        ...


class PluginContext:
    """Configuration and kernel services for one plugin.

    Attributes:
        settings: the kernel's own configuration sections.
        lifecycle: the server's own lifecycle; usable from a component's methods, not before `Component.start`.
        source: the configuration file, which may hold secrets; None if there is none.
        agents: by name, what ``shoal_register_agents`` gave; complete when runtimes are registered.
        capabilities: by name, of the runtimes; complete when networking and ingresses are registered. Before `start`
            only what a runtime declares of its class.
    """

    def __init__(
        self,
        settings: Settings,
        sections: Mapping[type, Struct],
        lifecycle: Lifecycle,
        source: Path | None = None,
        agents: Mapping[str, Agent] | None = None,
    ) -> None:
        self.settings = settings
        self.source = source
        self.lifecycle = lifecycle
        self.agents = {} if agents is None else agents
        self.capabilities: dict[str, Capabilities] = {}
        self._sections = sections
        self._plugin: str | None = None

    def agent(self) -> Agent | None:
        """The agent that ``runtime.execd_image`` names; None where it names an image or nothing.

        Raises ConfigError for the default agent by its name, if no enabled plugin provides it.
        """
        wanted = self.settings.runtime.execd_image
        if wanted == DEFAULT_AGENT and wanted not in self.agents:
            raise ConfigError(f"runtime.execd_image: no enabled plugin provides the agent {wanted!r}")
        return self.agents.get(wanted or DEFAULT_AGENT)

    def execd_image(self) -> str | None:
        """The reference of the image that ``runtime.execd_image`` names; None where it names an agent or nothing."""
        wanted = self.settings.runtime.execd_image
        return None if wanted is None or wanted == NO_AGENT or wanted in self.agents else wanted

    def default_runtime(self) -> tuple[str, Capabilities] | None:
        """Name and capabilities of the runtime of creates that name none; None if there is no telling yet."""
        name = self.settings.runtime.type
        if name is None and len(self.capabilities) == 1:
            name = next(iter(self.capabilities))
        found = self.capabilities.get(name or "")
        return None if name is None or found is None else (name, found)

    def section(self, kind: type[T]) -> T:
        """The plugin's own section, validated, as the Struct that it named in ``shoal_config_sections``."""
        try:
            return self._sections[kind]  # type: ignore[return-value]  # keyed by its own type
        except KeyError:
            whose = "the plugin" if self._plugin is None else f"the plugin {self._plugin!r}"
            problem = f"{getattr(kind, '__name__', kind)} is no section that {whose} declares in shoal_config_sections"
            raise ConfigError(problem) from None


def context_of(plugin: str, context: PluginContext) -> PluginContext:
    """The same context for one plugin, which messages then name."""
    named = copy.copy(context)
    named._plugin = plugin
    return named
