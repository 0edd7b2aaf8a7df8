"""``shoal completion``: words for the shell to offer."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command

SHELLS = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}
"""What each shell needs before the script."""

SCRIPT = """\
_shoal() {{
    local word=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    else
        case ${{COMP_WORDS[1]}} in
        {taking_ids}) COMPREPLY=($(compgen -W "$(shoal ls --quiet 2>/dev/null)" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
        esac
    fi
}}
complete -F _shoal shoal
"""


class CompletionCommand(Command):
    """A script for the shell.

    Args:
        taking_ids: names of the commands whose arguments are ids of sandboxes.
    """

    name = "completion"
    help = 'print a completion script: eval "$(shoal completion bash)"'

    def __init__(self, taking_ids: Iterable[str]) -> None:
        self._taking_ids = "|".join(taking_ids)

    def arguments(self, parser: ArgumentParser) -> None:
        """Which shell."""
        parser.add_argument("for_shell", choices=sorted(SHELLS), metavar="|".join(sorted(SHELLS)))

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Prints it."""
        script = SCRIPT.format(commands=" ".join(arguments.commands), taking_ids=self._taking_ids)
        print(SHELLS[arguments.for_shell] + script, end="")
        return 0
