"""``[renew_intent]`` (docs/wire/api.md section 19), with its keys for Redis dotted or as a sub-table."""

from __future__ import annotations

from msgspec import field

from shoal.config.settings import Positive, Section, Text
from shoal.models.secret import Secret


class RenewIntentSettings(Section):
    """``[renew_intent]``."""

    enabled: bool = False
    min_interval_seconds: Positive = 60
    """Cool-down: a sandbox is renewed at most once in this time."""


class RedisSettings(Section):
    """``[renew_intent.redis]``: the list that an ingress gateway writes."""

    enabled: bool = False
    dsn: Secret | None = field(default=None)
    queue_key: Text = "opensandbox:renew:intent"
    consumer_concurrency: Positive = 8
    """Intents taken and handled side by side, and likewise signals of the proxy."""

    def __post_init__(self) -> None:
        """Raise ValueError if Redis is enabled without a DSN."""
        if self.enabled and (self.dsn is None or not self.dsn.reveal().strip()):
            raise ValueError("dsn is required when redis.enabled is true")
