"""The sections of the gateway, key for key as in opensandbox-server (docs/wire/api.md section 19).

What a section alone can say is checked here; rules across sections, and the environment, are in ``setup``.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from shoal.config.settings import Section
from shoal.models.secret import Secret
from shoal_gateway.signing import SigningKey, decode_key

RouteMode = Literal["wildcard", "uri", "header"]
KeyId = Annotated[str, Meta(pattern=r"^[0-9a-z]$")]

_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_NAME = rf"{_LABEL}(\.{_LABEL})*"
_PORT = r"(:[0-9]{1,5})?"
_HOST = re.compile(_NAME + _PORT)
_WILDCARD = re.compile(r"\*\." + _NAME + _PORT)


class ModeSettings(Section):
    """``[ingress]``, of which the gateway reads one key.

    Attributes:
        mode: with ``gateway`` clients get the gateway's address.
    """

    mode: Literal["direct", "gateway"] = "direct"


class RouteSettings(Section):
    """``[ingress.gateway.route]``.

    Attributes:
        mode: what names the sandbox to the gateway: the host (``wildcard``), the path (``uri``) or a header.
    """

    mode: RouteMode


class GatewaySettings(Section):
    """``[ingress.gateway]``: required in gateway mode, refused in any other.

    Attributes:
        address: where clients find the gateway, without a scheme: ``*.domain`` in wildcard mode, ``host[:port]`` in
            header mode, ``host[:port][/path]`` in uri mode.
        route: how a request names its sandbox.
    """

    address: str | None = None
    route: RouteSettings | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an address that does not fit the mode."""
        if self.address is None or self.route is None:
            return
        self.address = self.address.strip()
        if "://" in self.address:
            raise ValueError("address must have no scheme")
        mode, address = self.route.mode, self.address
        if mode == "wildcard" and _WILDCARD.fullmatch(address) is None:
            raise ValueError('in route mode wildcard, address must be "*." and a domain')
        if mode == "header" and _HOST.fullmatch(address) is None:
            raise ValueError("in route mode header, address must be a host, with or without a port")
        if mode == "uri" and (not address or "*" in address or not address.isprintable() or " " in address):
            raise ValueError("in route mode uri, address must be a host with or without port and path, and no wildcard")


class SigningKeySettings(Section):
    """``[[ingress.secure_access.keys]]``: a key that the gateway knows, too.

    Attributes:
        key_id: one character, ``0`` to ``9`` or ``a`` to ``z``; the last of each signature.
        key: base64 of at least one byte, with or without padding.
    """

    key_id: KeyId
    key: Secret

    def __post_init__(self) -> None:
        """Raise ValueError, without the key."""
        decode_key(self.key.reveal())

    def made(self) -> SigningKey:
        """The key as bytes."""
        return SigningKey(self.key_id, decode_key(self.key.reveal()))


class SecureAccessSettings(Section):
    """``[ingress.secure_access]``: keys for signed endpoints.

    Attributes:
        active_key: id of the key that signs; the others are there for the gateway's sake while keys are rotated.
        keys: every key.
    """

    active_key: KeyId | None = None
    keys: list[SigningKeySettings] = []

    def __post_init__(self) -> None:
        """Raise ValueError for two keys of one id, or an active one that is not there."""
        ids = [key.key_id for key in self.keys]
        if len(set(ids)) < len(ids):
            raise ValueError("two keys have the same key_id")
        if self.keys and self.active_key is None:
            raise ValueError("active_key is required beside keys")
        if self.active_key is not None and self.active_key not in ids:
            raise ValueError("active_key names none of the keys")
