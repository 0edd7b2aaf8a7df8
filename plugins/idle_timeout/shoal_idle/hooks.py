"""What the kernel calls."""

from __future__ import annotations

from shoal.plugin import PluginContext, hookimpl
from shoal.plugin.interfaces import Renewal
from shoal_idle.plugin import IdleTimeout


@hookimpl
def shoal_wanted() -> bool:
    """Always: a create asks for it, not the configuration, and a sandbox that does not ask costs nothing."""
    return True


@hookimpl
def shoal_register_renewals(context: PluginContext) -> list[Renewal]:
    """One for all sandboxes."""
    return [IdleTimeout(context.lifecycle)]
