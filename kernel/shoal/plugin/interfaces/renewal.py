"""Renewal: hears that a sandbox was accessed, and may ask for a longer life."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Literal

from msgspec import Struct

from shoal.plugin.interfaces.component import Component


class Access(Struct, frozen=True):
    """One access: a proxied request, or a WebSocket connection."""

    sandbox_id: str
    port: int
    transport: Literal["http", "websocket"]
    at: datetime


class Renewal(Component, ABC):
    """Decides on a longer life and asks for it through ``context.lifecycle.renew``; may run a source of its own."""

    @abstractmethod
    def accessed(self, access: Access) -> None:
        """Called on the proxy's path for every access: note it and return at once; never raises."""
