"""The whole plugin contract: every hook that the kernel calls, in the order of a server's life.

A plugin is a module (or any object) named by an entry point of the group ``shoal.plugins``; the entry point's name is
the plugin's name. It implements any of these hooks with ``@hookimpl``, taking any subset of their arguments. Hooks
only register: the work is done by the typed objects they return (`shoal.plugin.interfaces`). The module must import
cheaply and without its engine's SDK; import that inside the hook that needs it, where a missing package becomes a
clear line about the extra to install.

Hooks are called once, while the server starts, outside any request. An exception from a hook stops the start: a
ConfigError with its own text, anything else as "plugin X failed in hook Y". Built-in plugins have no other way in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pluggy
from msgspec import Struct

if TYPE_CHECKING:
    from shoal.plugin.context import PluginContext
    from shoal.plugin.interfaces import (
        Agent,
        Authenticator,
        Command,
        Ingress,
        Networking,
        Observer,
        Policy,
        Renewal,
        Resources,
        Runtime,
        Store,
    )

PROJECT = "shoal"
ENTRY_POINT_GROUP = "shoal.plugins"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class ConfigSection(Struct, frozen=True):
    """A configuration section that a plugin owns, alone or with others.

    Attributes:
        name: the TOML table, dotted for a sub-table: ``local``, ``ingress.gateway``.
        kind: a msgspec Struct with a default for every key that may be left out; validated before any other hook.
        retired: key that is not read any more → why; in a file it is a warning.
        idle: the table may stand in the file while the plugin is not enabled, a runtime's that is not in use, say: a
            warning. Without it such a table stops the start.
        reads: keys of the kernel's own sections on which this plugin acts: ``server.api_key``. Set in a file where no
            enabled plugin reads it, such a key stops the start.
    """

    name: str
    kind: type[Struct]
    retired: Mapping[str, str] = {}
    idle: bool = False
    reads: tuple[str, ...] = ()


# --- Choosing: called for every plugin that is installed -------------------------------------------------------------


@hookspec
def shoal_wanted(config: Mapping[str, Any]) -> bool:
    """Should this plugin be enabled when ``[plugins] enabled`` does not say?

    Args:
        config: the configuration file as parsed, not validated; environment variables are the plugin's to read.

    Returns:
        True to be enabled. Not implementing the hook means: only when listed in ``[plugins] enabled``, when one of its
        sections is in the file, or when ``runtime.type`` is the plugin's name, with or without ``_runtime``.
    """


@hookspec
def shoal_config_sections() -> list[ConfigSection]:
    """The configuration sections that this plugin owns.

    Returns:
        One `ConfigSection` per table. A table that no enabled plugin owns, or a key that no owner knows, stops the
        start with the nearest known name. Two plugins may own one table; each sees its own keys.
    """


# --- Registering: called once for every enabled plugin, in this order ------------------------------------------------


@hookspec
def shoal_register_store(context: PluginContext) -> Store | None:
    """Durable storage, for ``store.type`` to name by `Store.name`. Two of the same name stop the start.

    The plugin ``{type}_store`` is enabled by ``store.type = "{type}"``, listed in `[plugins] enabled` or not.
    """


@hookspec
def shoal_register_agents(context: PluginContext) -> list[Agent]:
    """Programs that run inside sandboxes, for clients to run commands and move files with.

    ``runtime.execd_image`` names one; runtimes find it in ``context.agents``.
    """


@hookspec
def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
    """Ways to run sandboxes.

    ``runtime.type`` names the default among all that are registered; ``extensions["runtime"]`` of a create picks
    another. Two of the same name stop the start.
    """


@hookspec
def shoal_register_authenticators(context: PluginContext) -> list[Authenticator]:
    """Kinds of credential. None registered by any plugin means that the server is open."""


@hookspec
def shoal_register_networking(context: PluginContext) -> list[Networking]:
    """Concerns of the network that change a plan before it is durable."""


@hookspec
def shoal_register_ingresses(context: PluginContext) -> list[Ingress]:
    """Ways in: what the answer to a request for an endpoint holds."""


@hookspec
def shoal_register_renewals(context: PluginContext) -> list[Renewal]:
    """Listeners for access that may ask for a longer life."""


@hookspec
def shoal_register_observers(context: PluginContext) -> list[Observer]:
    """Listeners for lifecycle transitions."""


@hookspec
def shoal_register_resources(context: PluginContext) -> list[Resources]:
    """Routes of the HTTP API: Falcon resources with their paths, scopes and rows of the OpenAPI document."""


@hookspec
def shoal_register_policies(context: PluginContext) -> list[Policy]:
    """Rules about who may do what: authorization, ownership, quotas. None registered means that nobody is asked."""


# --- Beside a server: called for every plugin that is installed ------------------------------------------------------


@hookspec
def shoal_register_commands() -> list[Command]:
    """Sub-commands of ``shoal``. Called when the command line asks for help or for a command that is not built in."""
