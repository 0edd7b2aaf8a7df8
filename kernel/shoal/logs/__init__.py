"""Logging: one pipeline for shoal's own lines, for libraries that use `logging`, and for access lines.

`configure` sets it up from ``[log]``; every line is rendered where it is logged, and written by one thread, so that a
slow disk, terminal or pipe never holds up the event loop. Modules log with ``structlog.get_logger("shoal.module")``.
"""

from shoal.logs.setup import configure, log_access, shutdown

__all__ = ["configure", "log_access", "shutdown"]
