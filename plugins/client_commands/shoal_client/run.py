"""``shoal run`` and ``shoal exec``: a command, its output as it comes, and its exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command
from shoal_client import options
from shoal_client.agent import AgentClient
from shoal_client.connection import ClientError, ServerClient, add_arguments
from shoal_client.sandboxes import KEEP_ALIVE, SandboxClient

OWN_FAILURE: Final = 125
"""Exit code where the command was not run; as container engines have it."""
INTERRUPTED: Final = 130
DEFAULT_IMAGE: Final = "host"
"""Of the local runtime: this machine's root, read-only."""
LIFETIME_SECONDS: Final = 3600


class RunCommand(Command):
    """Create a sandbox, run a command in it, delete it."""

    name = "run"
    help = "run a command in a sandbox of its own, and pass on its exit code"

    def arguments(self, parser: ArgumentParser) -> None:
        """Those of the sandbox, and of the command."""
        add_arguments(parser)
        image = os.environ.get("SHOAL_IMAGE", DEFAULT_IMAGE)
        parser.add_argument("--image", default=image, help="default: $SHOAL_IMAGE, else host")
        parser.add_argument("--cpu", metavar="CORES", help="500m, 2")
        parser.add_argument("--memory", metavar="AMOUNT", help="256Mi, 1G")
        parser.add_argument("--label", action="append", type=options.pair, default=[], metavar="NAME=VALUE")
        parser.add_argument(
            "--lifetime", type=int, default=LIFETIME_SECONDS, metavar="SECONDS", help="the sandbox ends by then"
        )
        parser.add_argument("-d", "--detach", action="store_true", help="print the id and leave the sandbox running")
        options.add_command(parser)

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Returns the command's exit code, 125 for a failure before it."""
        request = options.command_request(arguments)
        if request is None and not arguments.detach:
            return _failed("give a command: shoal run -- echo hello")
        try:
            server = ServerClient.of(arguments)
            sandboxes = SandboxClient(server)
            with _ended_by_signals():
                made = sandboxes.create(_body(arguments))
                keep = False
                try:
                    code = 0 if request is None else _stream(AgentClient(server, made["id"]), request, arguments)
                    keep = arguments.detach
                    if keep:
                        print(json.dumps(made) if arguments.json else made["id"])
                    return code
                finally:
                    if not keep:
                        sandboxes.delete(made["id"], missing_ok=True)
        except ClientError as error:
            return _failed(error.message)
        except KeyboardInterrupt:
            return INTERRUPTED


class ExecCommand(Command):
    """Run a command in a sandbox that is there."""

    name = "exec"
    help = "run a command in a running sandbox, and pass on its exit code"

    def arguments(self, parser: ArgumentParser) -> None:
        """The sandbox and the command."""
        add_arguments(parser)
        parser.add_argument("sandbox", metavar="ID", help="an id, or the beginning of one")
        options.add_command(parser)

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Returns the command's exit code, 125 for a failure before it."""
        request = options.command_request(arguments)
        if request is None:
            return _failed("give a command: shoal exec ID -- echo hello")
        try:
            server = ServerClient.of(arguments)
            return _stream(AgentClient(server, SandboxClient(server).find(arguments.sandbox)), request, arguments)
        except ClientError as error:
            return _failed(error.message)
        except KeyboardInterrupt:
            return INTERRUPTED


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """SIGTERM and the end of the terminal raise SystemExit, so that a sandbox does not outlive its command."""

    def end(number: int, _: FrameType | None) -> None:
        for each in ended:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    ended = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_DFL]
    for each in ended:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in ended:
            signal.signal(each, signal.SIG_DFL)


def _body(arguments: Namespace) -> dict[str, Any]:
    limits = {"cpu": arguments.cpu, "memory": arguments.memory}
    return {
        "image": {"uri": arguments.image},
        "entrypoint": KEEP_ALIVE,
        "timeout": arguments.lifetime,
        "resourceLimits": {key: value for key, value in limits.items() if value},
        "metadata": dict(arguments.label),
    }


def _stream(agent: AgentClient, request: dict[str, Any], arguments: Namespace) -> int:
    """Run the command, print what comes, and return its exit code."""
    outcome = agent.run(request, _print_object if arguments.json else _print)
    if arguments.json:
        print(json.dumps({"type": "exit", "code": outcome.code, "why": outcome.why}), flush=True)
    elif outcome.why:
        print(f"shoal: {outcome.why}", file=sys.stderr)
    return outcome.code


def _print(stream: str, text: str) -> None:
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text)
    file.flush()


def _print_object(stream: str, text: str) -> None:
    print(json.dumps({"type": stream, "text": text}), flush=True)


def _failed(message: str) -> int:
    print(f"shoal: {message}", file=sys.stderr)
    return OWN_FAILURE
