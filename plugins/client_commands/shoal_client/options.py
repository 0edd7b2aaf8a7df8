"""Arguments that several commands take."""

from __future__ import annotations

from argparse import REMAINDER, SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from typing import Any


def pair(text: str) -> tuple[str, str]:
    """``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


def user(text: str) -> tuple[int, int | None]:
    """``UID`` or ``UID:GID``."""
    uid, colon, gid = text.partition(":")
    if not (uid.isdecimal() and (gid.isdecimal() or not colon)):
        raise ArgumentTypeError(f"expected UID or UID:GID in numbers, not {text!r}")
    return int(uid), int(gid) if colon else None


def add_command(parser: ArgumentParser) -> None:
    """What to run inside a sandbox, and how."""
    _add_options(parser)
    parser.add_argument("command", nargs=REMAINDER, metavar="[--] COMMAND", help="a program and its arguments")


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("-e", "--env", action="append", type=pair, metavar="NAME=VALUE")
    parser.add_argument("-w", "--workdir", metavar="DIR", help="working directory of the command")
    parser.add_argument("-u", "--user", type=user, metavar="UID[:GID]", help="runs the command as this user")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="ends the command after that time")
    parser.add_argument("-c", dest="script", metavar="SCRIPT", help="a line for the sandbox's shell")
    parser.add_argument("--json", action="store_true", help="one JSON object per line in place of the bare output")


def _after_options(arguments: Namespace) -> list[str]:
    """The program and its arguments; options that stand behind an id are read into ``arguments``."""
    words: list[str] = arguments.command
    if words[:1] == ["--"] or not words[:1] or not words[0].startswith("-"):
        return words[words[:1] == ["--"] :]
    parser = ArgumentParser(prog="shoal exec ID", add_help=False, argument_default=SUPPRESS)
    _add_options(parser)
    parser.add_argument("command", nargs=REMAINDER)
    parser.parse_args(words, namespace=arguments)
    return _after_options(arguments)


def command_request(arguments: Namespace) -> dict[str, Any] | None:
    """The body of ``POST /command``; None if nothing is to be run."""
    argv = _after_options(arguments)
    if not argv and arguments.script is None:
        return None
    uid, gid = arguments.user or (None, None)
    return {
        "argv": None if arguments.script is not None else argv,
        "command": arguments.script,
        "cwd": arguments.workdir,
        "envs": dict(arguments.env or ()) or None,
        "uid": uid,
        "gid": gid,
        "timeout": None if arguments.timeout is None else max(1, round(arguments.timeout * 1000)),
    }
