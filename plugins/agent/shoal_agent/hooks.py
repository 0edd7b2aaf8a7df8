"""The plugin: the agent that runtimes put into sandboxes. Runs in the server, not in a sandbox."""

from __future__ import annotations

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Agent
from shoal_agent.placement import AgentSettings, BuiltinAgent

SHOAL_API_VERSION = "1.1"


@hookimpl
def shoal_wanted() -> bool:
    """Always: a runtime that has no use for it does not ask."""
    return True


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[agent]``."""
    return [ConfigSection("agent", AgentSettings)]


@hookimpl
def shoal_register_agents(context: PluginContext) -> list[Agent]:
    """The agent ``builtin``."""
    return [BuiltinAgent(context.section(AgentSettings))]
