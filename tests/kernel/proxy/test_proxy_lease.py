"""A connection that was let go is somebody else's: nothing that its former exchange does reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernel.proxy.harness import PATIENCE, Peer, Sandboxes, Upstream, answering, header, ok
from tests.support.waiting import until

from shoal.config.settings import ProxySettings
from shoal.errors import BadGateway, InternalError
from shoal.proxy import HttpProxy, ResponseCut, parse_target
from shoal.proxy.asgi import Message, Scope
from shoal.proxy.pool import ConnectionPool, destination

USES: dict[str, Callable[[object], object]] = {
    name: (lambda lease, name=name, args=args: getattr(lease, name)(*args))  # type: ignore[misc]
    for name, args in {
        "write": (b"x",),
        "write_chunk": (b"x",),
        "drain": (),
        "end_request": (),
        "go_ahead": (1.0,),
        "head": (),
        "read": (1.0,),
    }.items()
}


class Caller:
    """One ASGI request without a server. The last piece of its answer is taken once the gate opens, if there is one."""

    def __init__(self, proxy: HttpProxy, method: str = "GET", path: str = "/", body: bytes = b"") -> None:
        self._proxy = proxy
        self._body: list[bytes] = [body] if body else []
        self._left = asyncio.Event()
        self.gate: Awaitable[None] | None = None
        self.sent: list[Message] = []
        raw = b"/sandboxes/s/proxy/80" + path.encode()
        self._target = parse_target(raw)
        self._scope: Scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "client": None,
            "query_string": b"",
            "raw_path": raw,
            "headers": [(b"content-length", b"%d" % len(body))] if body else [],
        }
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        assert self._target is not None
        await self._proxy(self._scope, self._receive, self._send, self._target)

    async def _receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if self.gate is not None and message.get("more_body") is False:
            await self.gate

    def leave(self) -> None:
        self._left.set()

    @property
    def ended(self) -> bool:
        """The whole answer was handed over."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])


def slow(release: asyncio.Event) -> Upstream:
    """Answers ``/big`` at once, and anything else when it is released."""

    async def script(peer: Peer) -> None:
        while head := await peer.head():
            if b"/big" in head:
                await peer.send(ok(b"x" * 300_000))
                continue
            await peer.reader.readexactly(int(header(head, b"content-length") or 0))
            await release.wait()
            await peer.send(ok(b"neighbour"))

    return Upstream(script)


@pytest.mark.parametrize("how", ["leaves", "is cancelled", "cannot be written to"])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_who_leaves_during_the_last_piece_does_not_end_a_neighbours_request(how: str, method: str) -> None:
    release = asyncio.Event()
    async with slow(release).running() as upstream, asyncio.timeout(PATIENCE):
        proxy = HttpProxy(Sandboxes(s=upstream.address), ProxySettings())
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leaver = Caller(proxy, path="/big")
        leaver.gate = gate
        await until(lambda: leaver.ended)
        assert (leaver.task.done(), proxy.pool.idle) == (False, 1)
        neighbour = Caller(proxy, method, "/slow", b"{}" if method == "PUT" else b"")
        await until(lambda: proxy.pool.idle == 0)
        assert (proxy.pool.open, upstream.connections) == (1, 1)
        if how == "leaves":
            leaver.leave()
        elif how == "is cancelled":
            leaver.task.cancel()
        else:
            gate.set_exception(OSError("gone"))
        await asyncio.wait([leaver.task])
        release.set()
        await neighbour.task
        assert (neighbour.status, upstream.connections) == (200, 1)
        await proxy.aclose()


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=8),
    pieces=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_whoever_is_cancelled_whenever_nobody_else_notices(steps: list[tuple[int, bool]], pieces: list[int]) -> None:
    """Callers begin so many turns of the loop after one another, on two connections; some are cancelled."""

    async def script(peer: Peer) -> None:
        while await peer.head():
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for size in pieces:
                if size:
                    await peer.send(b"%x\r\n%b\r\n" % (size, b"y" * size))
                await asyncio.sleep(0)
            await peer.send(b"0\r\n\r\n")

    async def run() -> None:
        upstream = Upstream(script)
        async with upstream.running(), asyncio.timeout(PATIENCE):
            limits = ProxySettings(max_connections_per_sandbox=2)
            proxy = HttpProxy(Sandboxes(s=upstream.address), limits)
            callers = []
            for turns, cancelled in steps:
                callers.append((caller := Caller(proxy), cancelled))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if cancelled:
                    caller.task.cancel()
            outcomes = await asyncio.gather(*(caller.task for caller, _ in callers), return_exceptions=True)
            for (caller, cancelled), outcome in zip(callers, outcomes, strict=True):
                if not cancelled:
                    assert (outcome, caller.status, caller.ended) == (None, 200, True)
                assert not isinstance(outcome, ResponseCut)
            await proxy.aclose()
            await until(lambda: proxy.pool.open == 0)

    asyncio.run(run())


@pytest.mark.parametrize("end", ["released", "aborted"])
@pytest.mark.parametrize("use", USES)
async def test_a_lease_that_is_over_reaches_nobody(use: str, end: str) -> None:
    async with answering(ok()).running() as upstream:
        place = destination(upstream.address)
        pool = ConnectionPool(connect_limit=PATIENCE, idle_limit=PATIENCE, per_address=2)
        lease = await pool.connect(place)
        lease.begin(headless=False, response_limit=PATIENCE)
        lease.write(b"GET / HTTP/1.1\r\n\r\n")
        lease.end_request()
        await lease.head()
        await lease.read(0)
        if end == "released":
            pool.release(place, lease)
        else:
            lease.abort()
        with pytest.raises(BadGateway):
            USES[use](lease)
        lease.fail(InternalError("TEST::LATE", "Too late."))
        lease.abort()
        pool.release(place, lease)
        again = pool.reuse(place)
        assert (again is not None) is (end == "released")
        if again is not None:
            again.abort()
        await until(lambda: pool.open == 0)
