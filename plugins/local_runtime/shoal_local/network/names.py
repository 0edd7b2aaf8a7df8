"""Resolver and hosts file of a sandbox that has a network of its own."""

from __future__ import annotations

import socket

from shoal_local.network.modes import Network
from shoal_local.network.outward import RESOLVER


def files(network: Network | None) -> dict[str, str]:
    """Names in /etc and their content; empty where the network, and so the names, are the machine's."""
    if network is None:
        return {}
    host = socket.gethostname()
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\t{host}\n"
    resolver = f"nameserver {RESOLVER}\n" if network.mode == "internet" else "# This sandbox has no way out.\n"
    return {"hosts": hosts, "resolv.conf": resolver}
