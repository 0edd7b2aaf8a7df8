"""``[renew_intent]``: how it may be written, and what stops the start."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from tests.kernel.lifecycle.fakes import World
from tests.support.lifecycle import register
from tests.support.sites import Machine

from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin.interfaces import Renewal
from shoal.plugin.manager import PluginManager
from shoal_renew.config import RedisSettings

DOTTED = """
[renew_intent]
enabled = true
min_interval_seconds = "30"
redis.enabled = "true"
redis.dsn = "redis://:hunter2@127.0.0.1:1/0"
redis.consumer_concurrency = 3
"""
TABLE = """
[renew_intent]
enabled = true
min_interval_seconds = 30
[renew_intent.redis]
enabled = true
dsn = "redis://:hunter2@127.0.0.1:1/0"
consumer_concurrency = 3
"""


def renewals(text: str) -> list[Renewal]:
    """What the plugin registers, given that configuration and no list of plugins."""
    raw: dict[str, Any] = tomllib.loads(text) | {"runtime": {"type": "memory"}, "machine": {}}
    raw.pop("machine")
    manager = PluginManager(Loaded(raw=raw), {"memory": Machine(World())})
    return [part for part in register(manager).renewals if part.name == "renew-intent"]


@pytest.mark.parametrize("text", [DOTTED, TABLE], ids=["dotted keys", "sub-table"])
def test_both_ways_of_writing_it_mean_the_same(text: str) -> None:
    [plugin] = renewals(text)
    assert len(plugin.services) == 2  # type: ignore[attr-defined]  # it is a RenewIntent


def test_it_is_off_unless_it_is_switched_on() -> None:
    assert renewals("") == []
    assert renewals("[renew_intent]") == []
    assert len(renewals("[renew_intent]\nenabled = true")) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[renew_intent]\nenabled = true\nredis.enabled = true", "dsn is required"),
        ('[renew_intent]\nenabled = true\nredis.enabled = true\nredis.dsn = " "', "dsn is required"),
        ("[renew_intent]\nenabled = true\nmin_interval_seconds = 0", "renew_intent.min_interval_seconds"),
        ('[renew_intent]\nredis.queue_key = ""', "renew_intent.redis.queue_key"),
        ("[renew_intent]\nredis.consumer_concurrency = 0", "renew_intent.redis.consumer_concurrency"),
        ("[renew_intent]\nmin_interval = 5", "min_interval_seconds"),
        ('[renew_intent]\nenabled = true\nredis.enabled = true\nredis.dsn = "http://u:hunter2@x"', "not a Redis URL"),
        ('[renew_intent]\nenabled = true\nredis.enabled = true\nredis.dsn = "redis://:hunter2@x:port"', "not a Redis"),
    ],
)
def test_what_is_wrong_stops_the_start_and_shows_no_secret(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        renewals(text)
    assert told in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_dsn_is_a_secret() -> None:
    read = tomllib.loads(TABLE)["renew_intent"]["redis"]["dsn"]
    [plugin] = renewals(TABLE)
    assert read not in repr(plugin)
    assert "hunter2" not in repr(RedisSettings(dsn=None))
