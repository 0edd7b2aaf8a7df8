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
        before: None for a new sandbox.
        after: None for one that is gone.
    """

    record: SandboxRecord
    before: State | None
    after: State | None
    at: datetime


class Observer(Component, ABC):
    """Told of every transition, in order per sandbox."""

    @abstractmethod
    def transition(self, event: Transition) -> None:
        """Note it and return at once. An exception is logged and changes nothing."""
