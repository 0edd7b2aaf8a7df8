"""The plugin: it registers commands, and nothing of it runs in a server."""

from __future__ import annotations

from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Command


@hookimpl
def shoal_register_commands() -> list[Command]:
    """The commands that speak to a server."""
    from shoal_client import completion, copy, listing, run, shell

    taking_ids = [run.ExecCommand(), shell.ShellCommand(), listing.LogsCommand(), listing.RemoveCommand()]
    return [
        run.RunCommand(),
        copy.CopyCommand(),
        listing.ListCommand(),
        *taking_ids,
        completion.CompletionCommand(command.name for command in taking_ids),
    ]
