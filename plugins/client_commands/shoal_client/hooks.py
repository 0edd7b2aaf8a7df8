"""The plugin: it registers commands, and nothing of it runs in a server."""

from __future__ import annotations

from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Command


@hookimpl
def shoal_register_commands() -> list[Command]:
    """The commands that speak to a server."""
    from shoal_client import completion, copy, listing, run, shell

    return [
        run.RunCommand(),
        run.ExecCommand(),
        copy.CopyCommand(),
        shell.ShellCommand(),
        listing.ListCommand(),
        listing.LogsCommand(),
        listing.RemoveCommand(),
        completion.CompletionCommand(),
    ]
