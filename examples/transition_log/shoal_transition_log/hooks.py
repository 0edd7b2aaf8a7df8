"""What the kernel calls."""

from __future__ import annotations

from pathlib import Path

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Observer
from shoal_transition_log.config import TransitionLogSettings
from shoal_transition_log.observer import TransitionLog


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[transition_log]``."""
    return [ConfigSection("transition_log", TransitionLogSettings)]


@hookimpl
def shoal_register_observers(context: PluginContext) -> list[Observer]:
    """The one observer; nothing is opened before its `start`."""
    settings = context.section(TransitionLogSettings)
    return [TransitionLog(Path(settings.path).expanduser(), queue_size=settings.queue_size)]
