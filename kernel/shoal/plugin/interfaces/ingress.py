"""Ingress: what a client is told when it asks for a port of a sandbox."""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import Struct

from shoal.models.requests import Wire
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Workload
from shoal.plugin.interfaces.component import Component


class Endpoint(Wire):
    """``endpoint`` is host[:port][/path] without a scheme; ``headers`` must be sent with each request to it."""

    endpoint: str
    headers: dict[str, str] | None = None


class EndpointQuery(Struct, kw_only=True, frozen=True):
    """One look-up, already checked: the port is valid and the workload has an address.

    Attributes:
        use_server_proxy: the client wants to go through this server.
        expires: Unix seconds for a signed route; None for an unsigned one.
        base: how the client reached this server: Host header and mount prefix (``example.com/v1``).
        internal_address: how the server itself reaches the port.
    """

    record: SandboxRecord
    workload: Workload
    port: int
    base: str
    internal_address: str
    use_server_proxy: bool = False
    expires: int | None = None


class Ingress(Component, ABC):
    """One way in. Asked in order of ``priority``, highest first, then by name; the first Endpoint wins."""

    priority: int = 0

    @abstractmethod
    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """The endpoint, or None for "not my case". Answers from the query alone: no I/O. Raises InvalidRequest."""
