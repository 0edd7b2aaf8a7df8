"""One request and its answer, as the edge sees them: identity, time, status, and the headers that every answer gets."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from typing import Any

from shoal.errors import Unauthenticated
from shoal.http.answers import EXCHANGE
from shoal.models import codes
from shoal.plugin.components import Part
from shoal.plugin.interfaces import PolicyRequest, Principal
from shoal.plugin.interfaces.policy import Governed
from shoal.proxy.asgi import Header, Message, Receive, Scope, Send
from shoal.web import cors
from shoal.web.seam import AccessEntry

KEY = EXCHANGE
"""Where resources find the exchange in the ASGI scope."""
CLIENT_CLOSED_REQUEST = 499
_MAX_REQUEST_ID_LENGTH = 128
_UUID4_CLEAR = ~(0xF << 76 | 0x3 << 62)
_UUID4_SET = 0x4 << 76 | 0x2 << 62


class Exchange:
    """State of one request.

    Attributes:
        headers: request headers by lower-case name; the last of a repeated one.
        method: as received; a WebSocket's is GET.
        consulted: names of the headers that an authenticator looked at.
        withheld: values of credentials that an authenticator knew.
        part: of the plugin whose responder has the request.
        principal: who asks, once known.
        route, sandbox_id: for the access log, once routed.
        status: of the answer; 0 before it began.
        complete: the answer went out to its end.
        close_code: that ended a WebSocket.
        ask, sees: of the policies, once routed: whether the caller may, with the body; and what it may see.
        admitted: what the policies let pass.
    """

    __slots__ = (
        "_extra",
        "_receive",
        "_reflects_origin",
        "_repeats",
        "_send",
        "_sent",
        "_started",
        "admitted",
        "ask",
        "close_code",
        "complete",
        "consulted",
        "headers",
        "method",
        "part",
        "principal",
        "request_id",
        "route",
        "sandbox_id",
        "sees",
        "status",
        "withheld",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._started = time.perf_counter()
        self._receive = receive
        self._send = send
        self._sent: list[Header] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self._sent)
        self.method: str = scope.get("method", "GET")
        self._repeats = len(self.headers) != len(self._sent)
        self.request_id = request_id(self.headers.get(b"x-request-id"))
        self._extra: list[Header] = [(b"x-request-id", self.request_id.encode("ascii"))]
        origin = self.headers.get(b"origin")
        self._reflects_origin = origin is not None
        if origin is not None:
            self._extra += cors.response_headers(origin)
        self.consulted: set[bytes] = set()
        self.withheld: set[bytes] = set()
        self.principal: Principal | None = None
        self.part: Part | None = None
        self.route: str | None = None
        self.sandbox_id: str | None = None
        self.status = 0
        self.complete = False
        self.close_code: int | None = None
        self.ask: Callable[[Any], Awaitable[None]] | None = None
        self.sees: Callable[[Governed], bool] | None = None
        self.admitted: PolicyRequest | None = None

    def identity(self) -> list[Header]:
        """The header that names this request to the client."""
        return self._extra[:1]

    async def send(self, message: Message) -> None:
        """ASGI send, with the headers that every answer gets."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._with_extra(message.get("headers", ()))
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    async def disconnected(self) -> None:
        """Returns when the caller has left; for answers that take long. What it still sends of a body is dropped."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, headers: Iterable[Header], content: bytes) -> None:
        """A whole answer at once."""
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": content})

    def leave_cors_alone(self) -> None:
        """The answer is another origin's: what it says about CORS, or does not say, is all there is."""
        self._reflects_origin = False
        del self._extra[1:]

    def credential(self, name: str) -> str | None:
        """A request header by its lower-case name, for an authenticator.

        Raises Unauthenticated if there are two: which one another program on the way judged, nobody knows.
        """
        encoded = name.encode("latin-1")
        self.consulted.add(encoded)
        if self._repeats and [sent for sent, _ in self._sent].count(encoded) > 1:
            raise Unauthenticated(codes.AMBIGUOUS_CREDENTIAL, f"The header {name} must be sent once.")
        return self.header(name)

    def withhold(self, value: str) -> None:
        """Let no header with this value go on to a sandbox: it is a credential of the control plane."""
        self.withheld.add(value.encode("latin-1"))

    def onward(self, scope: Scope) -> Scope:
        """The request as a sandbox may see it: without what is the control plane's, by name or by value."""
        consulted, withheld = self.consulted, self.withheld
        if not (consulted or withheld):
            return scope
        kept = [header for header in scope["headers"] if header[0] not in consulted and header[1] not in withheld]
        return {**scope, "headers": kept}

    def header(self, name: str) -> str | None:
        """A request header by its lower-case name."""
        value = self.headers.get(name.encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    def entry(self, scope: Scope) -> AccessEntry:
        """The access line of this request, as things stand."""
        client = scope.get("client")
        return AccessEntry(
            request_id=self.request_id,
            client=client[0] if client else None,
            principal=self.principal.name if self.principal else None,
            method=scope.get("method", "WEBSOCKET"),
            route=self.route,
            path=scope["path"],
            sandbox_id=self.sandbox_id,
            status=self.status or CLIENT_CLOSED_REQUEST,
            duration=time.perf_counter() - self._started,
            complete=self.complete,
            close_code=self.close_code,
        )

    def _with_extra(self, headers: Iterable[Header]) -> list[Header]:
        answer = [*headers]
        given = dict(answer)
        if b"date" not in given:  # a sandbox's service may have said when it answered
            answer.append(_clock.header())
        if self._reflects_origin and cors.ALLOW_ORIGIN in given:
            # A sandbox's service that speaks CORS itself has the last word on it.
            return [*answer, self._extra[0]]
        return answer + self._extra


class _Clock:
    """The Date header, written once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._header: Header = (b"date", b"")

    def header(self) -> Header:
        second = int(time.time())
        if second != self._second:
            self._second, self._header = second, (b"date", formatdate(second, usegmt=True).encode())
        return self._header


_clock = _Clock()


def request_id(sent: bytes | None) -> str:
    """The caller's id, trimmed and cut to 128 printable ASCII characters; a new one if that leaves nothing."""
    if sent is not None:
        text = sent[: 4 * _MAX_REQUEST_ID_LENGTH].decode("latin-1")
        if not (text.isascii() and text.isprintable()):
            text = "".join(char for char in text if char.isascii() and char.isprintable())
        text = text.strip()[:_MAX_REQUEST_ID_LENGTH]
        if text:
            return text
    # `uuid.uuid4` asks the system for entropy that an id for logs does not need, at a tenth of a read's whole cost.
    return f"{random.getrandbits(128) & _UUID4_CLEAR | _UUID4_SET:032x}"
