"""``shoal plugins``: the installed plugins, which are enabled and why, what failed, and which hooks it implements."""

from __future__ import annotations

import msgspec

from shoal.config.loader import Loaded
from shoal.plugin.manager import PluginStatus, survey


def show(loaded: Loaded, *, as_json: bool) -> None:
    """Print the list, as text or as a JSON array of `PluginStatus`. Raises ConfigError if there is no telling."""
    found = survey(loaded)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    print("\n\n".join(map(_describe, found)) or "no plugin is installed")


def _describe(status: PluginStatus) -> str:
    lines = [f"{status.name}: {'enabled' if status.enabled else 'not enabled'}{_because(status)}"]
    if status.failure:
        lines.append(f"  failed    {status.failure}")
    if status.distribution:
        lines.append(f"  from      {status.distribution} {status.version}")
    if status.sections:
        lines.append(f"  sections  {', '.join(f'[{name}]' for name in status.sections)}")
    if status.hooks:
        lines.append(f"  hooks     {', '.join(status.hooks)}")
    return "\n".join(lines)


def _because(status: PluginStatus) -> str:
    return f" ({status.why})" if status.why else ""
