"""What plugin authors test with: `server_with`, a real server on a temporary store, and kits for runtimes and stores.

::

    conformance         the suite that every runtime passes (docs/conformance.md)
    store_conformance   the suite that every store passes (docs/writing-a-store.md)
    pretend             a runtime in memory, for plugins that bring none
    pytest_plugin       the fixtures of the conformance kits
    server              `server_with`
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
