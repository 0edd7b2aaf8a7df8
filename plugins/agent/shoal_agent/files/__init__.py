"""Files and directories for clients: `docs/wire/execd.md` section 8."""

from __future__ import annotations

from shoal_agent.files.room import add_routes

__all__ = ["add_routes"]
