"""The plugin: sandboxes as process trees on this machine, enabled unless another runtime is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal.plugin.hookspecs import ConfigSection, hookimpl
from shoal_local.config import LocalSettings

if TYPE_CHECKING:
    from shoal.plugin.context import PluginContext
    from shoal.plugin.interfaces import Runtime


@hookimpl
def shoal_wanted(config: Mapping[str, Any]) -> bool:
    """Wanted when the file names no runtime, or this one."""
    runtime = config.get("runtime")
    kind = runtime.get("type") if isinstance(runtime, Mapping) else None
    return kind in (None, "local")


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[local]``."""
    return [ConfigSection("local", LocalSettings, idle=True)]


@hookimpl
def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
    """The runtime ``local``."""
    from shoal_local.runtime import LocalRuntime

    return [LocalRuntime(context.settings, context.section(LocalSettings), context.source, context.agent())]
