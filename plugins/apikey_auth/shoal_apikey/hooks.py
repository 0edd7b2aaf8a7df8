"""What the kernel calls."""

from __future__ import annotations

import os
from collections.abc import Mapping

from shoal.plugin import ConfigSection, PluginContext, hookimpl
from shoal.plugin.interfaces import Authenticator, Principal
from shoal_apikey.authenticator import ApiKeyAuthenticator
from shoal_apikey.config import SERVER_NAME, ApiKeySettings
from shoal_apikey.digests import digest
from shoal_apikey.keyring import Keyring, KeyringEntry
from shoal_apikey.sources import FixedSource, configured

KEY_VARIABLE = "OPENSANDBOX_SERVER_API_KEY"
"""Replaces ``server.api_key`` when it is set at all; blank removes it (docs/wire/api.md section 4)."""


@hookimpl
def shoal_wanted() -> bool:
    """Always: a key may come from the environment, and without any key nothing is registered."""
    return True


@hookimpl
def shoal_config_sections() -> list[ConfigSection]:
    """``[apikey_auth]``."""
    return [ConfigSection("apikey_auth", ApiKeySettings, reads=("server.api_key",))]


@hookimpl
def shoal_register_authenticators(context: PluginContext) -> list[Authenticator]:
    """One authenticator for all keys; none if no key is configured. Raises ConfigError."""
    settings = context.section(ApiKeySettings)
    entries = _entries(settings, context.settings.server.api_key, os.environ)
    return [ApiKeyAuthenticator(Keyring(entries), proxy=settings.proxy)] if entries else []


def _entries(settings: ApiKeySettings, server_key: str | None, environ: Mapping[str, str]) -> list[KeyringEntry]:
    entries = [
        KeyringEntry(configured(key, environ), Principal(name=key.name, scopes=frozenset(key.scopes)))
        for key in settings.keys
    ]
    single = environ.get(KEY_VARIABLE, server_key)
    if single and single.strip():
        source = FixedSource(frozenset({digest(single)}))
        entries.insert(0, KeyringEntry(source, Principal(name=SERVER_NAME)))
    return entries
