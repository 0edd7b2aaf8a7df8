"""When a sandbox stops running, the connections that its runtime made for the proxy go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.models.sandbox import State
from shoal.plugin.interfaces import Observer

if TYPE_CHECKING:
    from shoal.plugin.interfaces import Transition
    from shoal.proxy.http import HttpProxy


class Leaving(Observer):
    """Told of transitions; closes idle connections of sandboxes that pause or end."""

    name = "proxy"

    def __init__(self, proxy: HttpProxy) -> None:
        self._proxy = proxy

    def transition(self, event: Transition) -> None:
        if event.before is State.RUNNING and event.after is not State.RUNNING:
            self._proxy.drop(event.record.id)
