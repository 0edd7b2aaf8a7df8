"""At which host clients, and this server itself, find published ports (docs/wire/docker.md section 7).

The answer is worked out once, at start: it depends on the configuration and on this machine alone.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

LOOPBACK: Final = "127.0.0.1"
_MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
_KINDS: Final = frozenset({"podman", "docker", "oci", "lxc", "lxc-libvirt", "systemd-nspawn"})


class PublishedHosts(Struct, frozen=True):
    """``public``: for clients. ``proxy``: for this server."""

    public: str
    proxy: str


def find_hosts(
    *, bind: str, eip: str | None, host_ip: str | None, engine: str, publish_host: str = ""
) -> PublishedHosts:
    """The hosts.

    Args:
        bind: ``server.host``.
        publish_host: ``docker.publish_host``, for published ports: one address alone is where they are.
        eip: ``server.eip``, which may be a URL or hold a port: only its host counts here.
        host_ip: ``docker.host_ip``.
        engine: the engine's address; that of another machine is where its ports are.
    """
    bind = bind.strip()
    remote = urlsplit(engine).hostname if "://" in engine and not engine.startswith(("unix:", "http+unix:")) else None
    if remote is not None and not _is_loopback(remote):
        inside, outside = remote, remote
    elif host_ip and in_container() and (not bind or _is_wildcard(bind) or _is_loopback(bind)):
        inside, outside = host_ip, host_ip
    elif publish_host and not _is_wildcard(publish_host):
        inside, outside = publish_host, publish_host
    elif not bind or _is_wildcard(bind):
        inside, outside = LOOPBACK, outward()
    else:
        inside, outside = bind, bind
    return PublishedHosts(public=_host_of(eip or "") or outside, proxy=inside)


def in_container() -> bool:
    """Whether this server runs in a container itself."""
    said = os.environ.get("container") or os.environ.get("CONTAINER") or ""  # noqa: SIM112 - systemd's own spelling
    return said in _KINDS or any(mark.exists() for mark in _MARKS)


def outward() -> str:
    """This machine's IPv4 address towards the world; loopback if it has none."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # no packet is sent: the kernel only chooses a route
            return str(probe.getsockname()[0])
    except OSError:
        return LOOPBACK


def joined(host: str, port: int) -> str:
    """``host:port``, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _host_of(address: str) -> str:
    """The host of ``host[:port][/path]`` or of a URL, as it was written."""
    address = address.strip()
    if not address:
        return ""
    return urlsplit(address if "://" in address else f"//{address}").hostname or ""


def _is_wildcard(host: str) -> bool:
    return host in ("0.0.0.0", "::", "[::]")  # noqa: S104 - compared, not bound


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
