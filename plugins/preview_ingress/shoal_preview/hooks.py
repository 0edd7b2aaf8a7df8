"""What the kernel calls."""

from __future__ import annotations

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Ingress
from shoal_preview.config import PreviewSettings
from shoal_preview.ingress import PreviewIngress

KEY_NAME = "preview-links"
"""The file's name among the keys that the server made."""


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[ingress.preview]``, whose presence enables the plugin."""
    return [ConfigSection("ingress.preview", PreviewSettings)]


@hookimpl
def shoal_register_ingresses(context: PluginContext) -> list[Ingress]:
    """The preview hosts."""
    settings = context.section(PreviewSettings)
    return [PreviewIngress(settings, context.settings.store.keys_dir / KEY_NAME)]
