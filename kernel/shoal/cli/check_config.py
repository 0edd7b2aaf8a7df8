"""``shoal check-config``: would the server accept this file, in this environment?

It does what a start does up to the point where something would be opened: it picks and imports the plugins, validates
every section, asks each plugin for its components, applies the guard against an open start, and lets each component
check what it was given (`Component.check_config`). Engines, stores and ports stay untouched.
"""

from __future__ import annotations

from collections.abc import Mapping

from structlog.testing import capture_logs

from shoal.cli import first_key
from shoal.cli.places import unwritable
from shoal.config.loader import Loaded
from shoal.config.settings import Settings
from shoal.errors import ConfigError
from shoal.lifecycle.facade import SandboxLifecycle
from shoal.plugin.components import Components
from shoal.plugin.manager import PluginManager, PluginStatus, survey
from shoal.web.app import check_routes
from shoal.web.guard import refuse_open_start

UNMADE = "made on the first start"
"""Stands for the key that a start without a configuration would have."""


def check(loaded: Loaded, environ: Mapping[str, str]) -> None:
    """Print what the file amounts to. Raises ConfigError with every problem found, one a line."""
    print(f"source: {loaded.source or 'no file; the embedded default'}")
    if first_key.is_wanted(loaded, environ):
        print(f"note: without a configuration the first start makes an API key: {first_key.key_file()}")
        loaded = first_key.with_key(loaded, UNMADE)
    found = survey(loaded)
    _print_plugins(found)
    manager = PluginManager(loaded)
    lifecycle = SandboxLifecycle(manager.settings, manager.register)
    components = lifecycle.components
    check_routes(lifecycle, manager.settings, components)
    server = manager.settings.server
    with capture_logs() as warnings:
        refuse_open_start(manager.settings, components.authenticators, environ, ask=lambda: None)
        _check(manager.settings, components)
    print(f"runtimes: {', '.join(sorted(components.runtimes))}; default: {components.default_runtime}")
    print(f"authentication: {', '.join(each.name for each in components.authenticators) or 'none'}")
    print(f"listens on: {server.host}, port {server.port}")
    for warning in [*manager.warnings, *(entry["event"] for entry in warnings)]:
        print(f"note: {warning}")
    print("ok")


def _check(settings: Settings, components: Components) -> None:
    """Look where it would write, and ask every component; all problems are reported at once. Raises ConfigError."""
    problems = unwritable(settings)
    for part in components.all():
        try:
            part.component.check_config()
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))


def _print_plugins(found: list[PluginStatus]) -> None:
    enabled = [status for status in found if status.enabled]
    width = max((len(status.name) for status in enabled), default=0)
    print("enabled plugins:" if enabled else "enabled plugins: none")
    for status in enabled:
        print(f"  {status.name:{width}}  {status.why}")
    for status in found:
        if status.failure and not status.enabled:
            print(f"note: {status.failure}")
