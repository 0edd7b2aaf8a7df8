"""The endpoints of clients: the gateway's address, and the name of the sandbox there (docs/wire/api.md section 8)."""

from __future__ import annotations

import time
from typing import Final

import structlog

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.plugin.interfaces import Endpoint, EndpointQuery, Ingress
from shoal_gateway.access import TOKEN_LABEL
from shoal_gateway.setup import Gateway
from shoal_gateway.signing import LATEST, base36, signature

log = structlog.get_logger("shoal.gateway")

ROUTE_HEADER: Final = "OpenSandbox-Ingress-To"


class GatewayIngress(Ingress):
    """The gateway's address, signed if the client asks for that.

    It is known as soon as the workload is: whether the sandbox runs is the gateway's to find out.
    """

    name = "gateway"
    priority = 10
    signs = True

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def check_config(self) -> None:
        """Warn of keys that the gateway would not start with."""
        for key_id in self._gateway.unpadded:
            log.warning(
                "a key of ingress.secure_access is base64 without its padding, with which the gateway does not start; "
                "end it with '=' on both sides",
                key_id=key_id,
            )

    def needs_address(self, query: EndpointQuery) -> bool:
        return False

    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """None for clients that ask to go through this server. Raises InvalidRequest for ``expires`` out of range."""
        if query.use_server_proxy:
            return None
        route = [query.record.id, str(query.port)]
        if query.expires is not None:
            signed = self._signed(query.record.id, query.port, query.expires)
            route += signed if self._reads_signatures(query) else []
        address = self._gateway.address
        match self._gateway.mode:
            case "wildcard":
                return Endpoint(endpoint=f"{'-'.join(route)}.{address.removeprefix('*.')}")
            case "uri":
                return Endpoint(endpoint="/".join([address.rstrip("/"), *route]))
            case "header":
                return Endpoint(endpoint=address, headers={ROUTE_HEADER: "-".join(route)})

    def _reads_signatures(self, query: EndpointQuery) -> bool:
        """In a path, the gateway takes a signature for a part of the application's path where no token is asked for."""
        return self._gateway.mode != "uri" or bool(query.workload.labels.get(TOKEN_LABEL, "").strip())

    def _signed(self, sandbox_id: str, port: int, expires: int) -> list[str]:
        """The moment and the signature, as the gateway reads them."""
        key = self._gateway.key
        if key is None:
            raise InvalidRequest(codes.INVALID_PARAMETER, "Signed endpoints need keys: [ingress.secure_access].")
        if not time.time() < expires <= LATEST:
            raise InvalidRequest(codes.INVALID_PARAMETER, "expires must be Unix seconds in the future, below 2^64.")
        moment = base36(expires)
        return [moment, signature(key, sandbox_id, port, moment)]
