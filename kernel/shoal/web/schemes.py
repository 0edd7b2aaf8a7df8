"""The security schemes that `/openapi.json` names: those of the authenticators."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from shoal.errors import ConfigError
from shoal.models.opensandbox import API_KEY_HEADER
from shoal.plugin.components import NO_PLUGINS, part_of
from shoal.plugin.interfaces import Authenticator

_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "apiKey": ("name", "in"),
    "http": ("scheme",),
    "mutualTLS": (),
    "oauth2": ("flows",),
    "openIdConnect": ("openIdConnectUrl",),
}
"""What a scheme of each type must have (OpenAPI 3.1, "Security Scheme Object")."""


class Schemes(Struct, frozen=True):
    """What a document says of credentials.

    Attributes:
        components: scheme by name.
        alternatives: the document's ``security``: any one of these will do; None where nothing is known.
    """

    components: Mapping[str, Mapping[str, Any]]
    alternatives: Sequence[Mapping[str, Sequence[str]]] | None


OPEN: Final = Schemes(
    {
        "apiKey": {
            "type": "apiKey",
            "in": "header",
            "name": API_KEY_HEADER,
            "description": "An API key. This server asks for none, and ignores one that is sent.",
        }
    },
    [{"apiKey": []}, {}],
)
"""Of a server without authenticators: the wire's own header, for clients that are generated from the document."""


def schemes_of(authenticators: Sequence[Authenticator], plugins: Mapping[int, str] = NO_PLUGINS) -> Schemes:
    """The schemes of all authenticators together. Raises ConfigError, which names the plugin."""
    if not authenticators:
        return OPEN
    found: dict[str, Mapping[str, Any]] = {}
    owners: dict[str, str] = {}
    for each in authenticators:
        owner = str(part_of("authenticator", each, plugins))
        for name, scheme in _told(each, owner).items():
            if found.setdefault(name, scheme) != scheme:
                raise ConfigError(f"{owner}: the security scheme {name!r} is another one of {owners[name]}")
            owners.setdefault(name, owner)
    return Schemes(found, [{name: []} for name in found] or None)


def _told(authenticator: Authenticator, owner: str) -> dict[str, Mapping[str, Any]]:
    """What one authenticator says. Raises ConfigError."""
    try:
        told: Any = msgspec.to_builtins(authenticator.security_schemes())
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{owner} failed in security_schemes: {type(error).__name__}: {error}") from error
    if not isinstance(told, dict):
        raise ConfigError(f"{owner}: security_schemes must return a dict of OpenAPI security schemes by name")
    for name, scheme in told.items():
        if problem := _problem(name, scheme):
            raise ConfigError(f"{owner}: the security scheme {name!r} {problem}")
    return told


def _problem(name: Any, scheme: Any) -> str | None:
    """What is wrong with a scheme, if anything is."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        return "has a name that OpenAPI does not allow: letters, digits, '.', '_' and '-'"
    kind = scheme.get("type") if isinstance(scheme, dict) else None
    if not isinstance(kind, str) or kind not in _FIELDS:
        return f"needs a type: one of {', '.join(_FIELDS)}"
    lacking = [field for field in _FIELDS[kind] if not scheme.get(field)]
    return f"lacks {' and '.join(lacking)}, which the type {kind} needs" if lacking else None
