"""`TrustedPeers`: addresses of reverse proxies, whose connections stand for many clients."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "FORWARDED_ALLOW_IPS"
DEFAULT: Final = "127.0.0.1,::1"
_IPV6_NETWORK: Final = 64
"""Bits of an IPv6 address that name a site: one host has all addresses below."""


class TrustedPeers:
    """The peers of ``FORWARDED_ALLOW_IPS``: addresses and networks, divided by commas, or ``*`` for all.

    The same variable names those whose ``X-Forwarded-For`` is trusted.
    """

    def __init__(self, text: str = DEFAULT) -> None:
        self._all = text.strip() == "*"
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for part in text.split(","):
            try:
                self._networks.append(ipaddress.ip_network(part.strip(), strict=False))
            except ValueError:
                continue  # a name or a path of a socket, which no peer's address equals

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> TrustedPeers:
        """As the environment says."""
        return cls(environ.get(VARIABLE, DEFAULT))

    def site(self, peer: str | None) -> str | None:
        """What connections of this peer are counted under; None if they are not: a trusted peer, or a Unix socket."""
        if peer is None or self._all:
            return None
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return peer
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        if any(address in network for network in self._networks):
            return None
        if isinstance(address, ipaddress.IPv4Address):
            return str(address)
        return str(ipaddress.ip_network((address, _IPV6_NETWORK), strict=False))
