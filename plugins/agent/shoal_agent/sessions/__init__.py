"""Shell sessions, whose exported variables and directory last from run to run: `docs/wire/execd.md` section 5."""

from __future__ import annotations

from shoal_agent.sessions.routes import add_routes

__all__ = ["add_routes"]
