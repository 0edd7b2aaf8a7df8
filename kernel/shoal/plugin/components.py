"""What all enabled plugins registered, together."""

from __future__ import annotations

from msgspec import Struct

from shoal.plugin.interfaces import (
    Agent,
    Authenticator,
    Component,
    Ingress,
    Networking,
    Observer,
    Renewal,
    Runtime,
    Store,
)


class Components(Struct, kw_only=True):
    """Every component by family.

    Attributes:
        store: None for the embedded one.
        default_runtime: key into ``runtimes``.
        ingresses: in the order in which they are asked.
    """

    runtimes: dict[str, Runtime]
    default_runtime: str
    store: Store | None = None
    agents: list[Agent] = []
    authenticators: list[Authenticator] = []
    networking: list[Networking] = []
    ingresses: list[Ingress] = []
    renewals: list[Renewal] = []
    observers: list[Observer] = []

    def all(self) -> list[Component]:
        """Every component of every family."""
        return [
            *([self.store] if self.store else []),
            *self.agents,
            *self.authenticators,
            *self.networking,
            *self.ingresses,
            *self.observers,
            *self.runtimes.values(),
            *self.renewals,
        ]
