"""From a target to an address: the same for a request and for a WebSocket."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Final

from shoal.errors import Unauthenticated
from shoal.plugin.interfaces import AGENT_TOKEN_HEADER
from shoal.proxy.headers import SECURE_ACCESS

if TYPE_CHECKING:
    from shoal.models.workload import Tunnel
    from shoal.proxy.asgi import Header
    from shoal.proxy.headers import RequestHeaders
    from shoal.proxy.seam import Directory
    from shoal.proxy.target import ProxyTarget

_AGENT_TOKEN: Final = AGENT_TOKEN_HEADER.lower().encode()
SECURE_ACCESS_REFUSED: Final = "MISSING_OR_INVALID_SECURE_ACCESS"


async def resolve(
    directory: Directory, target: ProxyTarget, request: RequestHeaders
) -> tuple[str | Tunnel, list[Header]]:
    """Address or tunnel, and the endpoint's own headers.

    After the secure-access check: nobody without access wakes a sandbox.

    Raises Unauthenticated and what the directory raises.
    """
    sandbox_id, port = target.sandbox_id, target.port
    address = directory.address(sandbox_id, port)
    if address is None:
        _check_secure_access(target, directory.upstream_headers(sandbox_id, port), request.secure_access)
        address = await directory.await_address(sandbox_id, port, wake=not request.skip_renewal)
    endpoint_headers = directory.upstream_headers(sandbox_id, port)
    if endpoint_headers:
        _check_secure_access(target, endpoint_headers, request.secure_access)
        if target.host is not None and target.host.open:  # nobody was asked who they are
            endpoint_headers = [header for header in endpoint_headers if header[0].lower() != _AGENT_TOKEN]
    return address, endpoint_headers


def _check_secure_access(target: ProxyTarget, endpoint_headers: list[Header], presented: bytes | None) -> None:
    """Compare the caller's token with the endpoint's, in constant time; an endpoint without one is open.

    A signed host stands for the token. Raises Unauthenticated.
    """
    if target.host is not None and target.host.signed:
        return
    for name, token in endpoint_headers:
        if name.lower() == SECURE_ACCESS and not hmac.compare_digest(presented or b"", token):
            raise Unauthenticated(SECURE_ACCESS_REFUSED, "The OpenSandbox-Secure-Access header is missing or wrong.")
