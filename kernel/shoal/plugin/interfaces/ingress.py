"""Ingress: the endpoint that a client gets for a port of a sandbox, and whose port a Host header names."""

from __future__ import annotations

from abc import ABC, abstractmethod

from msgspec import Struct

from shoal.models.requests import Wire
from shoal.models.sandbox import SandboxRecord
from shoal.models.workload import Workload
from shoal.plugin.interfaces.component import Component


class Endpoint(Wire):
    """``endpoint`` is host[:port][/path] without a scheme; ``headers`` must be sent with each request to it.

    An ingress gives the headers by which its own way works. Those that the sandbox's port wants whichever way is taken
    (an access token, a sidecar's) come from the workload and from networking; the kernel adds them.

    Attributes:
        endpoint: ``sandbox.example:8443/some/path``, an IPv6 host in brackets.
        headers: by name, what clients are told to send; None for none.
    """

    endpoint: str
    headers: dict[str, str] | None = None


class EndpointQuery(Struct, kw_only=True, frozen=True):
    """One look-up, already checked: the port is valid and the workload was seen.

    Attributes:
        record, workload: the sandbox, and where it runs.
        port: of the sandbox, that the client asks for.
        use_server_proxy: the client wants to go through this server.
        expires: Unix seconds for a signed route; None for an unsigned one.
        base: how the client reached this server: Host header and mount prefix (``example.com/v1``).
        internal_address: how the server itself reaches the port; None while it cannot, which is asked about only of an
            ingress that can do without (`Ingress.needs_address`).
    """

    record: SandboxRecord
    workload: Workload
    port: int
    base: str
    internal_address: str | None
    use_server_proxy: bool = False
    expires: int | None = None


class HostTarget(Struct, frozen=True):
    """The port that a Host header stands for.

    Attributes:
        sandbox_id: of any sandbox, known or not; an unknown one is answered 404.
        port: of that sandbox.
        open: anybody may come in; no authenticator is asked.
        signed: whoever knows the host was given it; no authenticator is asked, nor for the sandbox's access token.
    """

    sandbox_id: str
    port: int
    open: bool = False
    signed: bool = False


class Ingress(Component, ABC):
    """One way in. Asked in order of ``priority``, highest first, then by name; the first Endpoint wins.

    Attributes:
        signs: it answers for ``expires``; one that does not is never asked for signed endpoints.
        claims: it has hosts of its own on this server (`claim`).
    """

    priority: int = 0
    signs: bool = False
    claims: bool = False

    @abstractmethod
    def endpoint(self, query: EndpointQuery) -> Endpoint | None:
        """The endpoint, or None for "not my case". Answers from the query alone: no I/O. Raises InvalidRequest."""

    def needs_address(self, query: EndpointQuery) -> bool:
        """Whether `endpoint` can answer only once the sandbox has an address; the kernel then waits for it, bounded."""
        return True

    def claim(self, host: str) -> HostTarget | None:
        """The port that a request's Host header names, or None for a host that is not this ingress's.

        Asked for every request, before anything else, if ``claims`` is set; from memory. Such a request goes to that
        port whatever its path, and the host counts as the sandbox's own: path, ``Host``, ``Cookie`` and
        ``Authorization`` travel as they came, save what an authenticator looked at, and the server adds no CORS.
        Raises Unauthenticated for a host that is signed wrongly, or no more.
        """
        return None
