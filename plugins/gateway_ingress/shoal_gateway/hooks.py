"""What the kernel calls."""

from __future__ import annotations

import os

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Ingress, Networking
from shoal_gateway.access import SecureAccess
from shoal_gateway.config import GatewaySettings, ModeSettings, SecureAccessSettings
from shoal_gateway.ingress import GatewayIngress
from shoal_gateway.setup import assemble


@hookimpl
def shoal_wanted() -> bool:
    """Always: in direct mode it registers nothing, and refuses what would then be ignored."""
    return True


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[ingress]``, of which it reads the mode, and the two tables in it that are its own."""
    return [
        ConfigSection("ingress", ModeSettings),
        ConfigSection("ingress.gateway", GatewaySettings),
        ConfigSection("ingress.secure_access", SecureAccessSettings),
    ]


@hookimpl
def shoal_register_networking(context: PluginContext) -> list[Networking]:
    """Access tokens, where there is a gateway to demand them. Raises ConfigError."""
    return [] if assemble(context, os.environ) is None else [SecureAccess()]


@hookimpl
def shoal_register_ingresses(context: PluginContext) -> list[Ingress]:
    """The gateway, if the mode says so. Raises ConfigError."""
    gateway = assemble(context, os.environ)
    return [] if gateway is None else [GatewayIngress(gateway)]
