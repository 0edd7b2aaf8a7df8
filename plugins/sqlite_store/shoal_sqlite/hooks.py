"""What the kernel calls. ``store.type = "sqlite"``, the default, enables this plugin by its name."""

from __future__ import annotations

from shoal.plugin import PluginContext, hookimpl
from shoal.plugin.interfaces import Store


@hookimpl
def shoal_register_store(context: PluginContext) -> Store:
    """The file that ``store.path`` names."""
    from shoal_sqlite.sqlite import SqliteStore

    return SqliteStore(context.settings.store.file)
