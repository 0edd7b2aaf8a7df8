"""Requests whose Host header stands for a port of a sandbox: who claims the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shoal.plugin.calls import contained, wrong
from shoal.plugin.components import NO_PLUGINS, part_of
from shoal.plugin.interfaces import HostTarget, Ingress
from shoal.web.exchange import Exchange

HOST_ROUTE = "{host}"
"""In the access log, of requests whose host stands for a port of a sandbox."""


class ClaimedHosts:
    """Asks the ingresses that claim hosts, in order; with none, every request goes by its path."""

    def __init__(self, ingresses: Sequence[Ingress], plugins: Mapping[int, str] = NO_PLUGINS) -> None:
        self._claims = [(each.claim, part_of("ingress", each, plugins)) for each in ingresses if each.claims]

    def claimed(self, exchange: Exchange) -> HostTarget | None:
        """The port that the Host header stands for. Raises Unauthenticated for a host that is signed wrongly."""
        host = exchange.header("host") if self._claims else None
        if host is None:
            return None
        for claim, part in self._claims:
            with contained(part):
                target: Any = claim(host)
            if isinstance(target, HostTarget):
                return target
            if target is not None:
                raise wrong(part, f"returned {type(target).__name__} from claim, and not a HostTarget or None")
        return None
