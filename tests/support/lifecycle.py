"""Lifecycles without a server, for tests that only register plugins or hand out a context."""

from __future__ import annotations

from tests.kernel.lifecycle.fakes import MemoryRuntime, MemoryStore, StoreContent, World

from shoal.config.settings import Settings
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.plugin.components import Components
from shoal.plugin.manager import PluginManager


def register(manager: PluginManager) -> Components:
    """What the enabled plugins register, in a lifecycle that is never started. Raises ConfigError."""
    return SandboxLifecycle(manager.settings, manager.register).components


def empty_lifecycle() -> SandboxLifecycle:
    """A lifecycle that knows of no sandbox, over a runtime and a store in memory."""
    runtime = MemoryRuntime(World())
    store = MemoryStore(StoreContent())
    components = Components(runtimes={"memory": runtime}, default_runtime="memory", store=store)
    return SandboxLifecycle(Settings(), lambda _: components)
