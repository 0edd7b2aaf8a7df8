"""What is in force, out of the sections and the environment (docs/wire/api.md sections 18 and 19)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from shoal.errors import ConfigError
from shoal.models.secret import Secret
from shoal.plugin import PluginContext
from shoal_gateway.config import (
    GatewaySettings,
    ModeSettings,
    RouteMode,
    SecureAccessSettings,
    SigningKeySettings,
)
from shoal_gateway.signing import SigningKey, is_padded

KEYS_VARIABLE = "OPENSANDBOX_SECURE_ACCESS_KEYS"
ACTIVE_KEY_VARIABLE = "OPENSANDBOX_SECURE_ACCESS_ACTIVE_KEY"


class Gateway(Struct, frozen=True):
    """A gateway in front of the sandboxes.

    Attributes:
        address: as configured.
        mode: how a request names its sandbox.
        key: signs endpoints; None = there are no signed endpoints.
        unpadded: ids of the keys that are written without the padding of base64.
    """

    address: str
    mode: RouteMode
    key: SigningKey | None
    unpadded: tuple[str, ...] = ()


def assemble(context: PluginContext, environ: Mapping[str, str]) -> Gateway | None:
    """The gateway, None in direct mode. Raises ConfigError with every rule that is broken, one a line."""
    settings = context.section(GatewaySettings)
    if context.section(ModeSettings).mode != "gateway":
        _refuse_without_gateway(context, environ)
        return None
    problems = []
    runtime = context.default_runtime()
    if runtime is not None and not runtime[1].routed:  # docs/wire/api.md section 19
        problems.append(f'ingress.mode: must be "direct" with runtime.type {runtime[0]!r}')
    if settings.address is None:
        problems.append('ingress.gateway.address: required with ingress.mode "gateway"')
    if settings.route is None:
        problems.append('ingress.gateway.route.mode: required with ingress.mode "gateway"')
    try:
        access = _secure_access(context.section(SecureAccessSettings), environ)
    except ConfigError as error:
        problems.append(str(error))
    if problems or settings.address is None or settings.route is None:
        raise ConfigError("\n".join(problems))
    key = next((key.made() for key in access.keys if key.key_id == access.active_key), None)
    unpadded = tuple(key.key_id for key in access.keys if not is_padded(key.key.reveal()))
    return Gateway(settings.address, settings.route.mode, key, unpadded)


def _refuse_without_gateway(context: PluginContext, environ: Mapping[str, str]) -> None:
    gateway, access = context.section(GatewaySettings), context.section(SecureAccessSettings)
    given = {
        "[ingress.gateway]": gateway.address is not None or gateway.route is not None,
        "[ingress.secure_access]": access.active_key is not None or bool(access.keys),
        KEYS_VARIABLE: bool(environ.get(KEYS_VARIABLE)),
        ACTIVE_KEY_VARIABLE: bool(environ.get(ACTIVE_KEY_VARIABLE)),
    }
    problems = [f'{name}: needs ingress.mode = "gateway"' for name, is_given in given.items() if is_given]
    if problems:
        raise ConfigError("\n".join(problems))


def _secure_access(configured: SecureAccessSettings, environ: Mapping[str, str]) -> SecureAccessSettings:
    """The section, or what the two variables say in its place. Raises ConfigError, without any key."""
    keys, active = environ.get(KEYS_VARIABLE), environ.get(ACTIVE_KEY_VARIABLE)
    if not keys and not active:
        return configured
    if not keys or not active:
        raise ConfigError(f"{KEYS_VARIABLE} and {ACTIVE_KEY_VARIABLE} must be set together")
    try:
        return SecureAccessSettings(
            active_key=active.strip(), keys=[_key(text) for text in keys.split(",") if text.strip()]
        )
    except ValueError as error:
        raise ConfigError(f"{KEYS_VARIABLE}: {error}") from None


def _key(text: str) -> SigningKeySettings:
    """``id=base64``. Raises ValueError."""
    key_id, equals, key = text.strip().partition("=")
    if not equals or len(key_id) != 1 or key_id not in "0123456789abcdefghijklmnopqrstuvwxyz":
        raise ValueError("expected id=base64 pairs with commas between them; an id is one of 0-9 and a-z")
    return SigningKeySettings(key_id=key_id, key=Secret(key))
