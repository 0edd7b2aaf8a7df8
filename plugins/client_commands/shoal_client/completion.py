"""``shoal completion``: words for the shell to offer."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command

WORDS = "serve init-config check-config plugins demo run exec cp shell ls logs rm completion"
BASH = f"""\
_shoal() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{WORDS}" -- "$word"))
    else
        case ${{COMP_WORDS[1]}} in
        exec|logs|rm|shell) COMPREPLY=($(compgen -W "$(shoal ls --quiet 2>/dev/null)" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
        esac
    fi
}}
complete -F _shoal shoal
"""
SCRIPTS = {"bash": BASH, "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH}"}


class CompletionCommand(Command):
    """A script for the shell."""

    name = "completion"
    help = 'print a completion script: eval "$(shoal completion bash)"'

    def arguments(self, parser: ArgumentParser) -> None:
        """Which shell."""
        parser.add_argument("for_shell", choices=sorted(SCRIPTS), metavar="|".join(sorted(SCRIPTS)))

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Prints it."""
        print(SCRIPTS[arguments.for_shell], end="")
        return 0
