"""`Cycle`: one request and its answer, as ASGI's ``receive`` and ``send``."""

from __future__ import annotations

import asyncio
import logging
import time
from math import inf
from typing import TYPE_CHECKING, Any, Final

from shoal.web.http1.answer import CONTINUE, Answer, answer_head, plain

if TYPE_CHECKING:
    from shoal.errors import ShoalError
    from shoal.proxy.asgi import Message, Scope
    from shoal.web.http1.protocol import HttpProtocol

log = logging.getLogger("shoal.web")

STREAMED: Final = "shoal.streamed"
"""Key of a scope whose body goes on as it comes: its silence is bounded then, but not its pace."""
_PACE: Final = 500
"""Bytes a second that a body comes with at least, once its time is up."""
_JOINED_BYTES: Final = 65536
"""Bodies beyond this are written by themselves: copying them would cost more than a system call."""
_DISCONNECT: Final = "http.disconnect"


class Cycle:
    """One request.

    The answer's head is held back until the body follows or the event loop turns: for small answers a second system
    call is a fifth of the whole cost.

    Attributes:
        gone: the client is; what is sent goes nowhere.
        keep_alive: another request may follow.
        complete: the whole answer was handed to the transport.
        awaited: the application waits for the body.
        failure: why the body cannot be read any further.
    """

    __slots__ = (
        "_answer",
        "_begun",
        "_body_ended",
        "_connection",
        "_continue",
        "_event",
        "_held",
        "_http10",
        "_left",
        "_received",
        "_scope",
        "awaited",
        "complete",
        "failure",
        "gone",
        "keep_alive",
    )

    def __init__(
        self,
        connection: HttpProtocol,
        scope: Scope,
        *,
        keep_alive: bool = False,
        http10: bool = False,
        expects_continue: bool = False,
    ) -> None:
        self._connection = connection
        self._scope = scope
        self._http10 = http10
        self._continue = expects_continue
        self._answer: Answer | None = None
        self._left: int | None = None
        self._held: bytes | None = None
        self._event: asyncio.Event | None = None
        self._body_ended = False
        self._begun = 0.0
        self._received = 0
        self.keep_alive = keep_alive
        self.gone = self.complete = self.awaited = False
        self.failure: ShoalError | None = None

    @property
    def started(self) -> bool:
        """The answer has begun."""
        return self._answer is not None

    async def run(self, app: Any) -> None:
        """Call the application; see that there is an answer, or that the connection ends."""
        try:
            await app(self._scope, self.receive, self.send)
        except Exception:
            log.exception("the application failed")
            self._give_up(500, "Internal Server Error")
        except BaseException:
            self._give_up(503, "Service Unavailable")
            raise
        else:
            if not self.complete:
                self._give_up(500, "Internal Server Error")

    def _give_up(self, status: int, text: str) -> None:
        if self.complete or self.gone:
            return
        if self._answer is None:
            self._connection.end(plain(status, text, self._connection.default_headers))
        else:
            self._flush()
            self._connection.cut(silent=self._left is None and not self._answer.chunked)

    def wake(self) -> None:
        """Something has happened that `receive` may wait for."""
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        """The next piece of the body, or that the client has left. Raises ShoalError for a body that is no HTTP."""
        connection = self._connection
        reader = connection.reader
        while not (self.gone or self.complete):
            if self.failure is not None:
                self.keep_alive = False
                raise self.failure
            if not self._body_ended:
                piece = reader.body()
                if piece or reader.exhausted:
                    self._body_ended = reader.exhausted
                    self._received += len(piece)
                    self._continue = False
                    connection.digested()
                    return {"type": "http.request", "body": piece, "more_body": not self._body_ended}
                if reader.pending:
                    await asyncio.sleep(0)
                    continue
                self._ask()
            await self._wait()
        return {"type": _DISCONNECT}

    def _ask(self) -> None:
        """Let the rest of the body come."""
        if self._continue:
            self._continue = False
            if self._answer is None:
                self._connection.write(CONTINUE)
        self._connection.digested()
        self.awaited = self._answer is None
        if self.awaited:
            self._connection.await_body(self._patience())

    def _patience(self) -> float:
        """Seconds that the client has left to go on with the body."""
        if STREAMED in self._scope:
            return inf
        now = time.monotonic()
        self._begun = self._begun or now
        return max(0.0, self._begun + self._connection.limits.body_seconds + self._received / _PACE - now)

    async def _wait(self) -> None:
        event = self._event
        if event is None:
            event = self._event = asyncio.Event()
        event.clear()
        await event.wait()
        self.awaited = False

    async def send(self, message: Message) -> None:
        """The answer's head, or a piece of its body. Returns once the client has taken enough of what came before."""
        connection = self._connection
        if connection.writable is not None:
            await connection.writable.wait()
        if self.gone:
            return
        kind = message["type"]
        if self._answer is None and kind == "http.response.start":
            self._begin(message)
        elif self._answer is not None and not self.complete and kind == "http.response.body":
            self._body(self._answer, message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} was sent out of turn")

    def _begin(self, message: Message) -> None:
        connection = self._connection
        keep_alive = self.keep_alive and (connection.reader.done or connection.may_stay(expected=self._continue))
        answer = answer_head(
            message["status"],
            connection.default_headers,
            message.get("headers", ()),
            method=self._scope["method"],
            http10=self._http10,
            keep_alive=keep_alive,
        )
        self._answer, self._left, self.keep_alive = answer, answer.left, answer.keep_alive
        self.awaited = False
        self._held = answer.head
        connection.soon(self._flush)

    def _flush(self) -> None:
        held, self._held = self._held, None
        if held is not None and not self.gone:
            self._connection.write(held)

    def _body(self, answer: Answer, body: bytes, *, more: bool) -> None:
        if answer.bodiless:
            body = b""
        elif answer.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if not more:
                body += b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body is not as long as its Content-Length")
        held = self._held
        if held is not None:
            self._held = None
            if len(body) > _JOINED_BYTES:
                self._connection.write(held)
            else:
                body = held + body
        if body:
            self._connection.write(body)
        if not more:
            self.complete = True
            self.wake()
            self._connection.answered(self)
