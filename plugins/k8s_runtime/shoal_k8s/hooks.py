"""What the kernel calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal.config.settings import DEFAULT_AGENT
from shoal.errors import ConfigError
from shoal.plugin import ConfigSection, hookimpl
from shoal_k8s.config import (
    RETIRED,
    AgentSandboxSettings,
    KubernetesRuntimeClassSettings,
    KubernetesSettings,
    PoolTemplateSettings,
)

if TYPE_CHECKING:
    from shoal.plugin import PluginContext
    from shoal.plugin.interfaces import Runtime


@hookimpl
def shoal_wanted(config: Mapping[str, Any]) -> bool:
    """Wanted when ``runtime.type`` is ``kubernetes``."""
    runtime = config.get("runtime")
    return isinstance(runtime, Mapping) and runtime.get("type") == "kubernetes"


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[kubernetes]`` and its parts, ``[agent_sandbox]`` and ``[secure_runtime]``."""
    return [
        ConfigSection("kubernetes", KubernetesSettings, retired=RETIRED, idle=True),
        ConfigSection("kubernetes.pool_templates", PoolTemplateSettings, idle=True),
        ConfigSection("agent_sandbox", AgentSandboxSettings, idle=True),
        ConfigSection("secure_runtime", KubernetesRuntimeClassSettings),
    ]


@hookimpl
def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
    """The runtime ``kubernetes``."""
    import kubernetes  # noqa: F401 - first, so that the manager's message about a missing package names this one

    from shoal_k8s.runtime import KubernetesRuntime

    if context.settings.runtime.execd_image is not None and context.agent() is not None:
        raise ConfigError(
            "runtime.execd_image: a cluster takes the agent from an image; name one that holds it, such as shoal's own"
        )
    return [
        KubernetesRuntime(
            context.settings,
            context.section(KubernetesSettings),
            context.section(KubernetesRuntimeClassSettings),
            context.section(AgentSandboxSettings),
            context.section(PoolTemplateSettings),
            context.agents.get(DEFAULT_AGENT),
        )
    ]
