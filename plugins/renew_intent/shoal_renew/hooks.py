"""What the kernel calls. Enabled when ``[renew_intent]`` is in the file, at work when ``enabled`` in it is true."""

from __future__ import annotations

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Renewal
from shoal_renew.config import RedisSettings, RenewIntentSettings
from shoal_renew.plugin import RenewIntent
from shoal_renew.renewer import Renewer
from shoal_renew.subjects import Subjects


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[renew_intent]`` and ``[renew_intent.redis]``."""
    return [ConfigSection("renew_intent", RenewIntentSettings), ConfigSection("renew_intent.redis", RedisSettings)]


@hookimpl
def shoal_register_renewals(context: PluginContext) -> list[Renewal]:
    """One for all sandboxes; none unless it is enabled. Raises ConfigError."""
    settings, shared = context.section(RenewIntentSettings), context.section(RedisSettings)
    if not settings.enabled:
        return []
    subjects = Subjects()
    if not shared.enabled:
        renewer = Renewer(context.lifecycle, subjects, settings.min_interval_seconds)
        return [RenewIntent(context.lifecycle, subjects, renewer, shared.consumer_concurrency)]
    from shoal_renew.redis import IntentList, ReplicaLocks  # needs the extra `redis`

    locks = ReplicaLocks(shared)
    renewer = Renewer(context.lifecycle, subjects, settings.min_interval_seconds, locks)
    plugin = RenewIntent(context.lifecycle, subjects, renewer, shared.consumer_concurrency)
    plugin.services = [locks, IntentList(shared, plugin.intent)]
    return [plugin]
