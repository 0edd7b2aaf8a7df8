"""The plugin contract: hook specifications, the interfaces that plugins implement, and the manager that loads them.

A plugin author needs two names: ``from shoal.plugin import hookimpl`` and the interface to subclass.
"""

from shoal.plugin.context import Lifecycle, PluginContext
from shoal.plugin.hookspecs import ConfigSection, hookimpl
from shoal.plugin.interfaces import Component, Transition
from shoal.plugin.version import API_VERSION

__all__ = ["API_VERSION", "Component", "ConfigSection", "Lifecycle", "PluginContext", "Transition", "hookimpl"]
