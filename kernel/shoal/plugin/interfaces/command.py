"""Commands: sub-commands of ``shoal``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from shoal.plugin.context import PluginContext


class Command(ABC):
    """One sub-command, in a process of its own: no server runs in it.

    Attributes:
        name: what is typed after ``shoal``; no other command has it.
        help: one line for ``shoal --help``.
    """

    name: ClassVar[str]
    help: ClassVar[str]

    def arguments(self, parser: ArgumentParser) -> None:  # noqa: B027 - a command need not have any
        """Add the command's arguments; ``--config`` is there already."""

    @abstractmethod
    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Run it; returns the exit code.

        Args:
            arguments: what was typed, parsed; `commands` in it has the names of all commands, in the order of the help.
            context: reads and validates the configuration and gives it as to the plugin's other hooks. It calls
                the hooks of every enabled plugin as a start does, and starts none of what they make. ``settings``,
                ``section(kind)`` and ``source`` are there; ``agents`` and ``capabilities`` are empty, and the lifecycle
                knows of no sandbox. Raises ConfigError.

        A ShoalError that is raised is printed as one line, with exit code 1.
        """
