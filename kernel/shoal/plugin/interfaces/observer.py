"""Observers: metrics, webhooks, audit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime

from msgspec import Struct

from shoal.models.sandbox import SandboxRecord, State
from shoal.plugin.interfaces.component import Component


class Transition(Struct, kw_only=True, frozen=True):
    """One lifecycle transition, after it is durable.

    Attributes:
        record: as it is after the transition; of one that is gone, as it was last.
        before: None for a new sandbox.
        after: None for one that is gone; never the same as ``before``. A member of a pool is new when it is taken.
        at: when the kernel noted it (UTC).
    """

    record: SandboxRecord
    before: State | None
    after: State | None
    at: datetime


class Observer(Component, ABC):
    """Told of every transition, in order per sandbox."""

    @abstractmethod
    def transition(self, event: Transition) -> None:
        """Note it and return at once: it is called on the event loop. An exception is logged and changes nothing.

        What is told is durable, but telling is not: a server that is killed between the two tells nobody.
        """
