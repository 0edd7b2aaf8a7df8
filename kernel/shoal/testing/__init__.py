"""What plugin authors test with: `server_with`, a real server on a temporary store, and the kit for runtimes.

::

    conformance     the suite that every runtime passes (docs/conformance.md)
    pretend         a runtime in memory, for plugins that bring none
    pytest_plugin   the fixture of the conformance kit
    server          `server_with`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.testing.server import RunningServer, server_with

__all__ = ["RunningServer", "server_with"]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: pytest imports this package wherever shoal is installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from shoal.testing import server

    return getattr(server, name)
