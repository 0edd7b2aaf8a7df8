"""`ConnectionGate`: all connections of a server: how many, from where, which are idle, which have run out of time.

One timer looks at all of them twice a second; a timer for each request would cost more than a request's parsing.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

import structlog

if TYPE_CHECKING:
    from shoal.web.http1.limits import ConnectionLimits
    from shoal.web.http1.trust import TrustedPeers

log = structlog.get_logger("shoal.web")

_SWEEP_INTERVAL: Final = 0.5
_NEWS_SECONDS: Final = 10.0
"""Between two log lines about the same kind of refusal: attackers do not fill the log."""


class GatedConnection(Protocol):
    """A connection, as the gate sees it.

    Attributes:
        deadline: when `expire` is due, in the loop's time.
    """

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline has passed."""
        ...

    def evict(self) -> None:
        """Close an idle connection in favour of a new one."""
        ...


class Site:
    """What connections of one address have in common: how many there are, and which of them are idle, oldest first."""

    __slots__ = ("count", "idle")

    def __init__(self) -> None:
        self.count = 0
        self.idle: dict[GatedConnection, None] = {}

    @property
    def busy(self) -> int:
        """Connections with a request in flight."""
        return self.count - len(self.idle)


class ConnectionGate:
    """Counts connections in and out. Nothing in it awaits, nothing in it raises.

    Args:
        limits: of the server.
        trusted: peers that are not counted by address.
    """

    def __init__(self, limits: ConnectionLimits, trusted: TrustedPeers) -> None:
        self.limits = limits
        self._trusted = trusted
        self._per_address = limits.part(limits.connections)
        self._requests_per_address = limits.part(limits.requests)
        self._sites: dict[str, Site] = {}
        self._places: dict[GatedConnection, tuple[str, Site] | None] = {}
        self._idle: dict[GatedConnection, None] = {}
        self._switched: dict[asyncio.BaseTransport, tuple[str, Site] | None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._warned: dict[str, float] = {}

    def enter(self, member: GatedConnection, peer: str | None) -> bool:
        """Count a new connection, which is idle; False if there is no room, not even in place of an idle one."""
        key = self._trusted.site(peer)
        site = None if key is None else self._sites.get(key) or Site()
        if site is not None and self._per_address and site.count >= self._per_address:
            room = self._evict(site.idle, "connections of one address")
        else:
            limit = self.limits.connections
            full = bool(limit) and len(self._places) + len(self._switched) >= limit
            room = not full or self._evict(self._idle, "connections")
        if not room:
            return False
        if key is None or site is None:
            self._places[member] = None
        else:
            self._sites[key] = site
            site.count += 1
            self._places[member] = key, site
        self.idle(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_INTERVAL, self._sweep)
        return True

    def leave(self, member: GatedConnection) -> None:
        """The connection is gone."""
        if member in self._places:
            self.busy(member)
            self._release(self._places.pop(member))

    def idle(self, member: GatedConnection) -> None:
        """It has no request in flight."""
        self._idle[member] = None
        place = self._places[member]
        if place is not None:
            place[1].idle[member] = None

    def busy(self, member: GatedConnection) -> None:
        """It has one."""
        self._idle.pop(member, None)
        place = self._places[member]
        if place is not None:
            place[1].idle.pop(member, None)

    def replace(self, old: GatedConnection, new: GatedConnection) -> None:
        """The connection goes on as another member, and is no longer idle."""
        if old in self._places:
            self.busy(old)
            self._places[new] = self._places.pop(old)

    def switch(self, member: GatedConnection, transport: asyncio.BaseTransport) -> None:
        """The connection speaks another protocol from now on: it is counted until its transport closes."""
        self.busy(member)
        self._switched[transport] = self._places.pop(member)

    def exceeds(self, member: GatedConnection, requests: int) -> bool:
        """Whether a request of a busy connection is one too many, with ``requests`` of all in flight."""
        limit = self.limits.requests
        if not limit:
            return False
        if requests >= limit:
            return True
        share = self._requests_per_address
        place = self._places[member] if share else None
        return place is not None and place[1].busy > share

    def warn(self, what: str) -> None:
        """Log that a limit was met, once in a while."""
        now = time.monotonic()
        if now - self._warned.get(what, -_NEWS_SECONDS) >= _NEWS_SECONDS:
            self._warned[what] = now
            log.warning("limit met", of=what, connections=len(self._places) + len(self._switched))

    def _evict(self, idle: dict[GatedConnection, None], what: str) -> bool:
        self.warn(what)
        oldest = next(iter(idle), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.evict()
        return True

    def _release(self, place: tuple[str, Site] | None) -> None:
        if place is None:
            return
        key, site = place
        site.count -= 1
        if not site.count:
            self._sites.pop(key, None)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for member in [member for member in self._places if member.deadline <= now]:
            member.expire(now)
        for transport in [transport for transport in self._switched if transport.is_closing()]:
            self._release(self._switched.pop(transport))
        again = self._places or self._switched
        self._timer = loop.call_later(_SWEEP_INTERVAL, self._sweep) if again else None
