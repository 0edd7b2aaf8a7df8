"""What a client was told of one sandbox, and what must therefore be so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

EXTENSION = timedelta(seconds=300)
"""By how much an access renews, in worlds that have renewal on access."""


@dataclass
class Promise:
    """One sandbox, as the client that made it knows it.

    What was asked for and never answered, or was refused because something was away, may have happened or not: it is
    kept as a possibility until a look at the sandbox decides.

    Attributes:
        expires_at: the expiry that was acknowledged last.
        perhaps_expires_at: expiries that may be in force instead.
        patched: the value of the metadata key ``patched`` that was acknowledged last.
        perhaps_patched: values that may be in force instead.
        deleting: a delete was asked for, and not acknowledged.
        pooled: it was taken from a pool.
        accessed_at: since then, accesses may have renewed it.
        superseded: expiries that may have been in force since the last look; None where nobody acts on what is past. A
            controller of a cluster that was held up ends by what it saw last, and writes whole seconds.
    """

    id: str
    expires_at: datetime
    perhaps_expires_at: set[datetime] = field(default_factory=set)
    patched: int = 0
    perhaps_patched: set[int] = field(default_factory=set)
    deleting: bool = False
    accessed_at: datetime | None = None
    pooled: bool = False
    superseded: set[datetime] | None = None

    def ask(self, expires_at: datetime) -> None:
        """A renewal is asked for."""
        self.perhaps_expires_at.add(expires_at)

    def told(self, expires_at: datetime) -> None:
        """And acknowledged."""
        if self.superseded is not None:
            self.superseded |= {self.expires_at} | self.perhaps_expires_at
        self.expires_at, self.perhaps_expires_at = expires_at, set()

    @property
    def earliest_end(self) -> datetime:
        return min({self.expires_at} | self.perhaps_expires_at)

    @property
    def latest_end(self) -> datetime:
        return max({self.expires_at} | self.perhaps_expires_at)

    def may_be_gone(self, now: datetime) -> bool:
        """Whether nobody need wonder that it is not there at this time."""
        if self.superseded is None:
            return self.deleting or now >= self.earliest_end
        return self.deleting or now >= min({self.earliest_end} | self.superseded).replace(microsecond=0)

    def found(self, item: dict[str, object], now: datetime) -> str | None:
        """Compare with the sandbox as the server shows it; doubts end here. Returns what is wrong, or None.

        ``now`` is the latest that the server's clock may have shown.
        """
        expires_at = datetime.fromisoformat(str(item["expiresAt"]))
        patched = int(item["metadata"]["patched"])  # type: ignore[index]  # JSON
        if not self._asked_for(expires_at) and not self._renewed(expires_at, now):
            return f"expires at {expires_at}: {self}"
        if patched not in {self.patched} | self.perhaps_patched:
            return f"patched {patched}: {self}"
        self.expires_at, self.perhaps_expires_at = expires_at, set()
        self.patched, self.perhaps_patched = patched, set()
        self.deleting = False
        if self.superseded is not None:
            self.superseded = set()
        return None

    def _asked_for(self, expires_at: datetime) -> bool:
        asked = {self.expires_at} | self.perhaps_expires_at
        if self.superseded is not None:
            asked |= {each.replace(microsecond=0) for each in asked}
        return expires_at in asked

    def _renewed(self, expires_at: datetime, now: datetime) -> bool:
        """Whether an access explains this expiry."""
        if self.accessed_at is None or expires_at < self.earliest_end:
            return False
        return expires_at <= now + EXTENSION
