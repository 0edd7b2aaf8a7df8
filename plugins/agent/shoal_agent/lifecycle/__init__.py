"""Hooks of the sandbox: one before its command, others on a schedule. `docs/wire/execd.md` section 13."""

from __future__ import annotations

from shoal_agent.lifecycle.hooks import HookRunner

__all__ = ["HookRunner"]
