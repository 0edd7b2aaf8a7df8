"""Terminals over WebSockets: `docs/wire/execd.md` section 6."""

from __future__ import annotations

from shoal_agent.pty.routes import add_routes

__all__ = ["add_routes"]
