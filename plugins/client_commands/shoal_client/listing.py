"""``shoal ls``, ``shoal logs`` and ``shoal rm``."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command
from shoal_client import options, table
from shoal_client.connection import ClientError, ServerClient, add_arguments
from shoal_client.sandboxes import SandboxClient

HEAD = ("ID", "STATE", "IMAGE", "CREATED", "EXPIRES", "LABELS")


class ListCommand(Command):
    """The sandboxes of a server."""

    name = "ls"
    help = "list sandboxes"

    def arguments(self, parser: ArgumentParser) -> None:
        """Filters and the form of the output."""
        add_arguments(parser)
        parser.add_argument("--state", help="Running, Paused, Failed …")
        parser.add_argument("--label", action="append", type=options.pair, default=[], metavar="NAME=VALUE")
        form = parser.add_mutually_exclusive_group()
        form.add_argument("-q", "--quiet", action="store_true", help="ids alone")
        form.add_argument("--json", action="store_true", help="one JSON object per line")

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Prints them, newest first. Raises ClientError."""
        found = SandboxClient(ServerClient.of(arguments)).list(state=arguments.state, metadata=dict(arguments.label))
        if arguments.json:
            for sandbox in found:
                print(json.dumps(sandbox))
        elif arguments.quiet:
            for sandbox in found:
                print(sandbox["id"])
        else:
            print(table.render(HEAD, map(_row, found)))
        return 0


class LogsCommand(Command):
    """What a sandbox's own command printed."""

    name = "logs"
    help = "print what a sandbox's own command printed"

    def arguments(self, parser: ArgumentParser) -> None:
        """The sandbox, and how much."""
        add_arguments(parser)
        parser.add_argument("sandbox", metavar="ID", help="an id, or the beginning of one")
        parser.add_argument("-n", "--tail", type=int, default=100, metavar="LINES", help="default: %(default)s")

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Prints them. Raises ClientError."""
        sandboxes = SandboxClient(ServerClient.of(arguments))
        text = sandboxes.logs(sandboxes.find(arguments.sandbox), arguments.tail)
        sys.stdout.write(text if text.endswith("\n") or not text else text + "\n")
        return 0


class RemoveCommand(Command):
    """End sandboxes."""

    name = "rm"
    help = "end sandboxes"

    def arguments(self, parser: ArgumentParser) -> None:
        """Which ones."""
        add_arguments(parser)
        parser.add_argument("sandboxes", nargs="*", metavar="ID", help="an id, or the beginning of one")
        parser.add_argument("--all", action="store_true", help="every sandbox of the server that this key sees")
        parser.add_argument("--json", action="store_true", help="one JSON object per line")

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Prints each id as it goes; returns 1 if one could not be ended, after trying the others."""
        sandboxes = SandboxClient(ServerClient.of(arguments))
        wanted = [str(each["id"]) for each in sandboxes.list()] if arguments.all else arguments.sandboxes
        if not wanted and not arguments.all:
            raise ClientError("give an id, or --all")
        code = 0
        for name in wanted:
            try:
                sandbox_id = name if arguments.all else sandboxes.find(name)
                sandboxes.delete(sandbox_id, missing_ok=arguments.all)
                print(json.dumps({"id": sandbox_id}) if arguments.json else sandbox_id)
            except ClientError as error:
                print(f"shoal: {error.message}", file=sys.stderr)
                code = 1
        return code


def _row(sandbox: dict[str, Any]) -> tuple[str, ...]:
    labels = ",".join(f"{key}={value}" for key, value in sorted((sandbox.get("metadata") or {}).items()))
    return (
        str(sandbox["id"]),
        str(sandbox["status"]["state"]),
        str((sandbox.get("image") or {}).get("uri", "-")),
        _moment(sandbox.get("createdAt")),
        _moment(sandbox.get("expiresAt")),
        labels or "-",
    )


def _moment(text: str | None) -> str:
    return text[:19].replace("T", " ") if text else "-"
