"""Sub-commands that installed plugins add.

What a command may ask for, the server's lifecycle, is imported when it asks: most are clients, and start quickly.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigError, ShoalError
from shoal.plugin.discovery import Candidate, discover
from shoal.plugin.interfaces import Command

if TYPE_CHECKING:
    from shoal.plugin import PluginContext

HOOK = "shoal_register_commands"


def commands(taken: Iterable[str], *, quiet: bool = False) -> list[Command]:
    """The commands of every installed plugin, by name. A plugin that fails is left out, with a line unless ``quiet``.

    Raises ConfigError for a name that is ``taken``, by the server itself or another plugin.
    """
    owners = dict.fromkeys(taken, "the server itself")
    found: list[Command] = []
    for name, candidate in sorted(discover({}).items()):
        for command in _of(candidate, quiet=quiet):
            if command.name in owners:
                raise ConfigError(f"plugin {name!r}: the command {command.name!r} is taken by {owners[command.name]}")
            owners[command.name] = f"the plugin {name!r}"
            found.append(command)
    return sorted(found, key=lambda command: command.name)


def add(subparsers: Any, parents: list[ArgumentParser], command: Command) -> None:
    """Make a command one of the parser's."""
    parser = subparsers.add_parser(command.name, parents=parents, help=command.help, description=command.help)
    command.arguments(parser)
    parser.set_defaults(run=lambda arguments: _run(command, arguments))


def _of(candidate: Candidate, *, quiet: bool) -> list[Command]:
    try:
        if HOOK not in candidate.hooks():
            return []
        answer = candidate.call(HOOK)
        found = candidate.parts_of(HOOK, answer, Command)  # type: ignore[type-abstract]  # none is made
        for command in found:
            if not all(isinstance(getattr(command, key, None), str) for key in ("name", "help")):
                raise ConfigError(f"plugin {candidate.name!r}: {type(command).__name__} needs a name and a help, texts")
    except ConfigError as error:
        if not quiet:
            print(f"shoal: {error}", file=sys.stderr)
        return []
    return found


def _run(command: Command, arguments: Namespace) -> int:
    def context() -> PluginContext:
        from shoal.cli.main import load
        from shoal.lifecycle.facade import SandboxLifecycle
        from shoal.plugin.manager import PluginManager

        manager = PluginManager(load(arguments))
        return manager.context(SandboxLifecycle(manager.settings, manager.register))

    try:
        return command.run(arguments, context)
    except ShoalError as error:
        raise ConfigError(error.message) from error
