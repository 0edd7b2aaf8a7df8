"""What the kernel calls. Enabled when ``[egress]`` is in the file."""

from __future__ import annotations

from shoal.errors import ConfigError
from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Networking
from shoal_egress.config import EgressSettings
from shoal_egress.plugin import EgressPolicy


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[egress]``."""
    return [ConfigSection("egress", EgressSettings)]


@hookimpl
def shoal_register_networking(context: PluginContext) -> list[Networking]:
    """One for all sandboxes. Raises ConfigError for settings that the configured runtime has no use for."""
    settings = context.section(EgressSettings)
    runtime = context.default_runtime()
    problem = None if runtime is None else settings.check_runtime(*runtime)
    if problem is not None:
        raise ConfigError(problem)
    return [EgressPolicy(settings)]
