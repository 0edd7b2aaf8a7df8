"""The guard against starting open to the network: no authentication, and an address that others can reach.

Asked before anything is opened. The guard of opensandbox-server (docs/wire/api.md section 4) sees only the key; this
also looks at the address, so that a machine of one's own needs no key.
"""

from __future__ import annotations

import ipaddress
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from shoal.config.settings import Settings
from shoal.errors import ConfigError
from shoal.plugin.interfaces import Authenticator

log = structlog.get_logger("shoal.web")

INSECURE_VARIABLE: Final = "OPENSANDBOX_INSECURE_SERVER"
CONSENT: Final = "YES"
"""Exactly this, in the environment or on the terminal."""

ASK_SECONDS: Final = 30.0


def ask_on_terminal() -> str | None:
    """What the person at the terminal types within `ASK_SECONDS`; None where there is nobody, or no answer."""
    if not (sys.stdin and sys.stdin.isatty()):
        return None
    print("No authentication is configured: anyone who can reach this server can run code here.", file=sys.stderr)
    print(f"Start anyway? Type {CONSENT}: ", end="", file=sys.stderr, flush=True)
    ready, _, _ = select.select([sys.stdin], [], [], ASK_SECONDS)
    return sys.stdin.readline().rstrip("\r\n") if ready else None


def refuse_open_start(
    settings: Settings,
    authenticators: Sequence[Authenticator],
    environ: Mapping[str, str],
    *,
    ask: Callable[[], str | None] = ask_on_terminal,
) -> None:
    """Return if the server may start, else raise ConfigError.

    It may if a plugin registered an authenticator, if it listens on loopback only (with a warning), or if somebody
    said exactly ``YES``: in ``OPENSANDBOX_INSECURE_SERVER``, or when asked.
    """
    host = settings.server.host
    if authenticators:
        return
    if is_loopback(host):
        log.warning("no authentication: every user of this machine may use the server", host=host)
        return
    if environ.get(INSECURE_VARIABLE) == CONSENT or ask() == CONSENT:
        log.warning("no authentication: everyone who reaches this address may use the server", host=host)
        return
    raise ConfigError(
        f"the server would listen on {host} without authentication; set a key (server.api_key or an authentication"
        f' plugin), listen on server.host = "127.0.0.1", or set {INSECURE_VARIABLE}={CONSENT} to start open'
    )


def is_loopback(host: str) -> bool:
    """Is it an address of 127.0.0.0/8, ::1, or ``localhost``? Any other name counts as reachable from outside."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    # Python before 3.13 does not look into ::ffff:127.0.0.1.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
