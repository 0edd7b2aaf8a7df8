"""Code contexts: interpreters of the image that keep their state between runs, and those of a Jupyter server."""

from __future__ import annotations

from shoal_agent.code.routes import add_routes

__all__ = ["add_routes"]
