"""What the kernel calls."""

from __future__ import annotations

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Ingress
from shoal_direct.config import IngressSettings
from shoal_direct.ingresses import DirectIngress, ServerProxyIngress


@hookimpl
def shoal_wanted() -> bool:
    """Always: beside a gateway it still answers for the server's own proxy."""
    return True


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[ingress]``."""
    return [ConfigSection("ingress", IngressSettings)]


@hookimpl
def shoal_register_ingresses(context: PluginContext) -> list[Ingress]:
    """The server's proxy always; the direct address unless a gateway is configured."""
    eip = context.settings.server.eip
    proxy = ServerProxyIngress(eip)
    return [proxy, DirectIngress(eip)] if context.section(IngressSettings).mode == "direct" else [proxy]
