"""Commands, their streams, status, logs and interrupts: `docs/wire/execd.md` sections 3 and 4."""

from __future__ import annotations

from shoal_agent.commands.routes import add_routes

__all__ = ["add_routes"]
