"""Requests handed on to applications in the sandbox: `docs/wire/execd.md` section 10."""

from __future__ import annotations

from shoal_agent.proxy.room import add_routes

__all__ = ["add_routes"]
