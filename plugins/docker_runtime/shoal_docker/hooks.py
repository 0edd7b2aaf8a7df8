"""The plugin: sandboxes as containers of Docker or Podman, enabled where ``runtime.type`` is ``docker``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal.plugin.hookspecs import ConfigSection, hookimpl
from shoal_docker.config import DockerSettings, SecureRuntimeSettings

if TYPE_CHECKING:
    from shoal.plugin.context import PluginContext
    from shoal.plugin.interfaces import Runtime


@hookimpl
def shoal_wanted(config: Mapping[str, Any]) -> bool:
    """Wanted when the file names this runtime."""
    runtime = config.get("runtime")
    return isinstance(runtime, Mapping) and runtime.get("type") == "docker"


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[docker]`` and ``[secure_runtime]``."""
    return [ConfigSection("docker", DockerSettings, idle=True), ConfigSection("secure_runtime", SecureRuntimeSettings)]


@hookimpl
def shoal_register_runtimes(context: PluginContext) -> list[Runtime]:
    """The runtime ``docker``."""
    import docker  # noqa: F401 - first, so that the manager's message about a missing package names this one

    from shoal_docker.runtime import DockerRuntime

    return [
        DockerRuntime(
            context.settings,
            context.section(DockerSettings),
            context.section(SecureRuntimeSettings),
            known=lambda sandbox_id: context.lifecycle.known(sandbox_id),
            agent=context.agent(),
            execd_image=context.execd_image(),
        )
    ]
