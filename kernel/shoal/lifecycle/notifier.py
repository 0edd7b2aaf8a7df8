"""Notifies observers and renewals of what happened: whatever they raise changes nothing, and names its plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from shoal.plugin.components import Components
from shoal.plugin.interfaces import Component

log = structlog.get_logger("shoal.lifecycle")


class Notifier:
    """Calls plain functions of components that only listen.

    Args:
        components: whose each is, and which have not started: those are not called.
    """

    def __init__(self, components: Components | None = None) -> None:
        self._plugins = components.plugins if components is not None else {}
        self._down = components.down if components is not None else set()

    def __call__(self, component: Component, method: str, call: Callable[[], None]) -> None:
        """Call one. Raises nothing but KeyboardInterrupt."""
        if id(component) in self._down:
            return
        try:
            call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._log(component, method, error)

    def _log(self, component: Component, method: str, error: BaseException) -> None:
        log.error(
            "a plugin failed to take note",
            plugin=self._plugins.get(id(component), type(component).__module__),
            component=component.name,
            method=method,
            exc_info=error if not isinstance(error, asyncio.CancelledError | SystemExit) else None,
            error=f"{type(error).__name__}: {error}",
        )
