"""What a socket and a terminal say to each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from shoal_agent.commands.launch import StartError
from shoal_agent.http.errors import Disconnected
from shoal_agent.http.fields import whole
from shoal_agent.http.websocket import TEXT, WebSocket
from shoal_agent.pty import frames
from shoal_agent.pty.session import TerminalSession

PING_SECONDS = 30.0
SILENCE_SECONDS = 60.0
"""A client that says nothing for so long is gone."""
WRITE_SECONDS = 10.0
"""The same for one that takes nothing."""
VIEWER_BEHIND = 256 * 1024
"""Bytes from which on a viewer is too slow."""
NORMAL, TOO_SLOW, TAKEN_OVER = 1000, 1013, 4001


class TerminalSocket:
    """One socket of a session. `holder` is None for a viewer."""

    def __init__(
        self, session: TerminalSession, socket: WebSocket, holder: asyncio.Event | None, since: int, terminal: bool
    ) -> None:
        self._session = session
        self._socket = socket
        self._holder = holder
        self._terminal = terminal
        ring = session.ring
        self._offset = ring.end
        self._since = min(max(since, ring.start), ring.end)
        if holder is not None:
            ring.follower = ring.end

    async def talk(self) -> None:
        """Until either side ends."""
        tasks = [asyncio.ensure_future(part) for part in (self._speak(), self._listen(), self._ping())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(Disconnected, TimeoutError):
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._holder is not None:
                self._session.detach(self._holder)
        await self._socket.drain()

    async def _send(self, frame: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await frame

    # To the client.

    async def _speak(self) -> None:
        session, ring = self._session, self._session.ring
        if self._since < self._offset:
            data = ring.between(self._since, self._offset)
            await self._send(self._socket.send_binary(frames.replay(self._since, data)))
        if not await self._begin():
            return
        while True:
            if self._holder is not None and self._holder.is_set():
                await self._send(self._socket.close(TAKEN_OVER, "TAKEN_OVER"))
                return
            if await self._output():
                continue
            if session.exit_code is not None:
                await self._send(self._socket.send_text(frames.text("exit", exit_code=session.exit_code)))
                await self._send(self._socket.close(NORMAL, "process exited"))
                return
            await ring.changed()

    async def _begin(self) -> bool:
        """Says hello and starts the process if none runs. Returns False if it cannot."""
        session = self._session
        try:
            if self._holder is not None and not session.running and not session.deleted:
                session.start(self._terminal)
        except StartError as error:
            await self._send(self._socket.send_text(frames.error(str(error), frames.START_FAILED)))
            await self._send(self._socket.close(NORMAL, "start failed"))
            return False
        await self._send(
            self._socket.send_text(
                frames.text(
                    "connected",
                    session_id=session.id,
                    mode="pty" if session.terminal else "pipe",
                    role="viewer" if self._holder is None else "controller",
                )
            )
        )
        return True

    async def _output(self) -> bool:
        """Sends what one frame holds. Returns False if there is nothing."""
        ring = self._session.ring
        if self._holder is None and ring.end - self._offset > VIEWER_BEHIND:
            await self._send(self._socket.close(TOO_SLOW, "too slow"))
            raise Disconnected
        found = ring.read(self._offset)
        if found is None:
            return False
        channel, data = found
        frame = frames.replay(self._offset, data) if self._holder is None else frames.output(channel, data)
        await self._send(self._socket.send_binary(frame))
        self._offset += len(data)
        if self._holder is not None and not self._holder.is_set():
            ring.follower = self._offset
            ring.regulate()
        return True

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self._send(self._socket.ping())

    # From the client.

    async def _listen(self) -> None:
        while True:
            async with asyncio.timeout(SILENCE_SECONDS):
                kind, data = await self._socket.receive()
            if kind == TEXT:
                await self._text(data)
            elif data[:1] == bytes((frames.STDIN,)):
                await self._stdin(data[1:])

    async def _text(self, data: bytes) -> None:
        frame = frames.parse(data)
        if frame is None:
            return
        kind, process = frame.get("type", ""), self._session.process
        if kind == "ping":
            await self._send(self._socket.send_text(frames.text("pong")))
        elif kind not in ("stdin", "resize", "signal"):
            message = f"unknown type {kind!r}" if kind else "a frame needs a type"
            await self._send(self._socket.send_text(frames.error(message, frames.INVALID_FRAME)))
        elif self._holder is None or process is None:
            return
        elif kind == "stdin":
            await self._stdin(whole(str(frame.get("data") or "")).encode())
        elif kind == "resize":
            columns, rows = frames.cells(frame.get("cols")), frames.cells(frame.get("rows"))
            if columns and rows:
                process.resize(columns, rows)
        elif (number := frames.SIGNALS.get(str(frame.get("signal")))) is not None:
            process.signal(number)

    async def _stdin(self, data: bytes) -> None:
        process = self._session.process
        if self._holder is None or process is None or process.stdin is None or not data:
            return
        try:
            await process.stdin.write(data)
        except BrokenPipeError:
            message = frames.error("the process reads no more", frames.STDIN_WRITE_FAILED)
            await self._send(self._socket.send_text(message))
