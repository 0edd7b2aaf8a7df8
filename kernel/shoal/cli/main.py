"""The command ``shoal``: ``serve``, ``init-config``, ``check-config``, ``plugins`` and ``demo``; without one it serves.
Plugins add others (`shoal.cli.commands`).

Exit codes: 0 done, 1 told why not (each line on stderr begins ``shoal:``), 2 wrong usage, 130 Ctrl-C. What a command
needs is imported when it runs; installed plugins are looked at for help, and for a command that is none of these.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal

if TYPE_CHECKING:
    from shoal.config.loader import Loaded

BUILT_IN = ("serve", "init-config", "check-config", "plugins", "demo")
EXAMPLES = ("local", "docker", "docker-zh", "k8s", "k8s-zh")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments after the command's name; the process's own by default.

    Returns:
        The exit code. Raises SystemExit(2) for wrong usage, and SystemExit(0) after ``--help`` and ``--version``.
    """
    from shoal.errors import ConfigError

    try:
        arguments = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except ConfigError as error:
        for line in str(error).splitlines():
            print(f"shoal: {line}", file=sys.stderr)
    except BrokenPipeError:  # the reader has seen enough; nothing may be written to it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 1


def _parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Our own commands, and those of plugins if the arguments ask for any."""
    parser = argparse.ArgumentParser(
        prog="shoal", description="A plugin microkernel for sandboxes. Without a command it serves."
    )
    parser.add_argument("--version", action="version", version=f"shoal {shoal.__version__}")
    _serving(parser, default=None)
    parser.set_defaults(run=_serve)
    commands = parser.add_subparsers(metavar="COMMAND")
    # No defaults here: they would hide what was given before the command.
    config = argparse.ArgumentParser(add_help=False)
    _config(config, default=argparse.SUPPRESS)

    serve = commands.add_parser("serve", help="run the server until SIGTERM or SIGINT")
    _serving(serve, default=argparse.SUPPRESS)
    serve.set_defaults(run=_serve)

    init = commands.add_parser("init-config", help="write a commented configuration file to start from")
    init.add_argument("path", type=Path, nargs="?", default=Path("~/.sandbox.toml"), metavar="PATH")
    init.add_argument(
        "--example", choices=EXAMPLES, help="an example for one runtime, instead of every section and key"
    )
    init.add_argument("--force", action="store_true", help="overwrite an existing file")
    init.set_defaults(run=_init_config)

    check = commands.add_parser("check-config", parents=[config], help="say whether the server would accept the file")
    check.set_defaults(run=_check_config)

    plugins = commands.add_parser("plugins", parents=[config], help="list the installed plugins and what they do")
    plugins.add_argument("--json", action="store_true", help="for machines")
    plugins.set_defaults(run=_plugins)

    demo = commands.add_parser("demo", help="show one sandbox's whole life on the local runtime, without an SDK")
    demo.set_defaults(run=_demo)
    _plugin_commands(commands, config, argv)
    parser.set_defaults(commands=tuple(commands.choices))
    return parser


def _plugin_commands(subparsers: Any, config: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    if _asks_for_others(argv):
        from shoal.cli import commands

        for command in commands.commands(BUILT_IN):
            commands.add(subparsers, [config], command)


def _asks_for_others(argv: Sequence[str]) -> bool:
    """Whether the arguments ask for help in general, or hold a word and none of our own commands."""
    before = next((place for place, word in enumerate(argv) if word in BUILT_IN), len(argv))
    if any(word in ("-h", "--help") for word in argv[:before]):
        return True
    return before == len(argv) and any(not word.startswith("-") for word in argv)


def _config(parser: argparse.ArgumentParser, *, default: Any) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        default=default,
        help="default: $SANDBOX_CONFIG_PATH, else ~/.sandbox.toml if it exists",
    )


def _serving(parser: argparse.ArgumentParser, *, default: Any) -> None:
    _config(parser, default=default)
    parser.add_argument("--host", default=default, help="instead of server.host")
    parser.add_argument("--port", type=int, default=default, help="instead of server.port")
    parser.add_argument(
        "--no-key",
        action="store_true",
        default=default,
        help="without a configuration: make no API key, and ask for none",
    )
    parser.add_argument("--reload", action="store_true", default=default, help=argparse.SUPPRESS)


def _serve(arguments: argparse.Namespace) -> int:
    from shoal.cli import first_key
    from shoal.server import serve

    if arguments.reload:
        print("shoal: --reload is a development flag of opensandbox-server, and ignored", file=sys.stderr)
    loaded = _overridden(load(arguments), {"host": arguments.host, "port": arguments.port})
    if not arguments.no_key and first_key.is_wanted(loaded, os.environ):
        loaded = first_key.provide(loaded)
    return serve(loaded)


def _init_config(arguments: argparse.Namespace) -> int:
    from shoal.cli.init_config import example, write
    from shoal.cli.skeleton import skeleton

    path: Path = arguments.path.expanduser()
    name = arguments.example
    write(path, example(name) if name else skeleton(), force=arguments.force)
    what = f"example: {name}" if name else "every section and key"
    print(f"wrote {path} ({what}); try: shoal check-config --config {path}")
    return 0


def _check_config(arguments: argparse.Namespace) -> int:
    from shoal.cli import commands
    from shoal.cli.check_config import check

    commands.commands(BUILT_IN, quiet=True)  # `check` says what is wrong with plugins
    check(load(arguments), os.environ)
    return 0


def _plugins(arguments: argparse.Namespace) -> int:
    from shoal.cli.plugins import show

    show(load(arguments), as_json=arguments.json)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from shoal.cli.demo import main as demo

    return demo()


def load(arguments: argparse.Namespace) -> Loaded:
    """The configuration file that the arguments or the environment name. Raises ConfigError."""
    from shoal.config.loader import load

    return load(arguments.config, os.environ)


def _overridden(loaded: Loaded, flags: dict[str, str | int | None]) -> Loaded:
    """The file, with the given flags in ``[server]``; a ``server`` that is no table is left to be refused."""
    from shoal.config.loader import Loaded

    given = {key: value for key, value in flags.items() if value is not None}
    server = loaded.raw.get("server", {})
    if not given or not isinstance(server, dict):
        return loaded
    return Loaded(raw={**loaded.raw, "server": {**server, **given}}, source=loaded.source)


if __name__ == "__main__":
    sys.exit(main())
