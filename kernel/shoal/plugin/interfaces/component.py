"""The life of anything that a plugin hands to the kernel."""

from __future__ import annotations

from typing import ClassVar


class Component:
    """Base of every interface: opened before the port answers, closed after it stopped answering, pinged by ``/ready``.

    Attributes:
        name: unique among the components of one family; shown by logs and, with plugin and family, by ``/ready``.
    """

    name: ClassVar[str]

    def check_config(self) -> None:
        """Say what a start would find wrong, without opening anything: no engine, no port, no connection.

        Called by ``shoal check-config``, and by the server before any `start`. May read small files. What is logged
        here as a warning is shown by both. Raises ConfigError if the server must not start.
        """

    async def start(self) -> None:
        """Open what is needed, within ``plugins.start_timeout_seconds``.

        Raises ConfigError if the server must not start without it. After any other failure of a runtime, an observer
        or a renewal the server goes on without it, and calls `stop` and `start` again until it starts.
        """

    async def stop(self) -> None:
        """Close what `start` opened, within ``plugins.stop_timeout_seconds``. Called once for each start, also for one
        that failed; never raises.
        """

    async def ping(self) -> None:
        """Return if this component can do its work now; raise a ShoalError that says why not. At most one a second."""
