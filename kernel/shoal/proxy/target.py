"""The path of a proxied request, taken apart byte for byte (docs/wire/api.md sections 2 and 15).

Only the sandbox id is decoded, once; what follows the port travels as it came, escapes, double slashes and all.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from shoal.errors import FieldProblem, InvalidRequest, ValidationFailed
from shoal.models.codes import INVALID_PARAMETER, INVALID_PORT
from shoal.plugin.interfaces import HostTarget

_ROUTE = re.compile(rb"(/v1)?(/sandboxes/([^/]+)/proxy/([^/]+))(/.*)?", re.DOTALL)
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_PORT_DIGITS = 20
"""Longer numbers are out of range whatever they are; `int` need not read them."""


class ProxyTarget(NamedTuple):
    """One proxied request's address as the client wrote it.

    Attributes:
        mount: ``/v1`` or empty.
        route: ``/sandboxes/{id}/proxy/{port}``, as written; with the mount, what a rewritten Location starts with.
        path: what the sandbox's service is asked for, still escaped; begins with a slash.
        host: given if it was the Host header that named the port, and no path: the origin is then the sandbox's own,
            and ``mount`` and ``route`` are empty.
    """

    sandbox_id: str
    port: int
    mount: bytes
    route: bytes
    path: bytes
    host: HostTarget | None = None


def parse_target(raw_path: bytes) -> ProxyTarget | None:
    """The target that ``scope["raw_path"]`` names, or None when it is not a proxy path.

    Raises ValidationFailed for a port that is not an integer, InvalidRequest for one outside 1..65535.
    """
    match = _ROUTE.fullmatch(raw_path)
    if match is None:
        return None
    mount, route, sandbox, port, path = match.groups()
    sandbox_id = (unquote_to_bytes(sandbox) if b"%" in sandbox else sandbox).decode("utf-8", "replace")
    return ProxyTarget(sandbox_id, _port(port), mount or b"", route, path or b"/")


def host_target(host: HostTarget, raw_path: bytes) -> ProxyTarget:
    """The target of a request to a host that stands for a port. Raises InvalidRequest for ``OPTIONS *``."""
    if raw_path[:1] != b"/":
        raise InvalidRequest(INVALID_PARAMETER, "The path must begin with a slash.")
    return ProxyTarget(host.sandbox_id, host.port, b"", b"", raw_path, host)


def _port(text: bytes) -> int:
    if not text.isdigit() and _INTEGER.fullmatch(text) is None:
        raise ValidationFailed([FieldProblem(type="int_parsing", loc=["path", "port"], msg="expected an integer")])
    port = int(text) if len(text) <= _PORT_DIGITS else 0
    if not 1 <= port <= 65535:
        raise InvalidRequest(INVALID_PORT, "The port must lie between 1 and 65535.")
    return port
