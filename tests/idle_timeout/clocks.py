"""A clock that a test moves, and the plugin by that clock."""

from __future__ import annotations

from shoal.plugin import PluginContext, hookimpl
from shoal.plugin.interfaces import Renewal
from shoal_idle.plugin import IdleTimeout


class Clock:
    """Seconds, as a test wants them."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Idle:
    """The idle timeout as a plugin object: `advance` moves its time."""

    def __init__(self) -> None:
        self.now = Clock()
        self.plugin: IdleTimeout

    @hookimpl
    def shoal_register_renewals(self, context: PluginContext) -> list[Renewal]:
        self.plugin = IdleTimeout(context.lifecycle, self.now)
        return [self.plugin]

    def advance(self, seconds: float) -> None:
        """Let time pass, and let what is due then be due."""
        self.now.seconds += seconds
        self.plugin.clock.fire()
