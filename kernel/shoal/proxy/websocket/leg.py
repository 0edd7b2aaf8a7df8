"""One leg of a relayed WebSocket: a transport, the frames that come from it, and what is written to it.

Control frames of the server's own stand between the frames that are passed on, never within one: while a frame is
on its way, a pong waits for its end.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from shoal.proxy.websocket.frames import CLOSE, PING, PONG, Control, FrameReader, Violation, close_payload, frame

if TYPE_CHECKING:
    from shoal.proxy.websocket.relay import Relay

WRITE_AHEAD: Final = 256 * 1024
"""High-water mark of a transport, beyond which the other leg is not read."""


class Leg(asyncio.Protocol):
    """The protocol of an open transport; `join` puts it there.

    Args:
        relay: hears of what ends the leg.
        reader: of what comes from this side.
        masks: frames to this side must be masked: the server is its client.

    Attributes:
        other: the leg whose frames are written here.
        close_sent, close_received: of the closing handshake.
        lost: the transport is gone.
    """

    __slots__ = (
        "_asked",
        "_heard",
        "_lingers",
        "_masks",
        "_pong",
        "_reading",
        "_relay",
        "_transport",
        "_writable",
        "close_received",
        "close_sent",
        "lost",
        "other",
        "reader",
    )

    def __init__(self, relay: Relay, reader: FrameReader, *, masks: bool) -> None:
        self._relay = relay
        self._masks = masks
        self._transport: asyncio.Transport
        self._pong: bytes | None = None  # owed; the latest ping is the only one that needs an answer
        self._reading = self._writable = True
        self._heard = self._asked = self._lingers = False
        self.reader = reader
        self.other: Leg
        self.close_sent = self.close_received = self.lost = False

    def join(self, transport: asyncio.Transport) -> None:
        """Take the transport over; what came from it beyond the handshake is to be fed once both legs have joined."""
        self._transport = transport
        transport.set_write_buffer_limits(WRITE_AHEAD)
        transport.set_protocol(self)

    # From this side.

    def data_received(self, data: bytes) -> None:
        """Pass on what is data, act on what is not."""
        self._heard = True
        if self.close_received:
            return
        other = self.other
        for item in self.reader.feed(data):
            if isinstance(item, bytes):
                other.pass_on(item)
            elif isinstance(item, Violation):
                self.close_received = True  # nothing that it says counts any more
                self._relay.violated(self, item)
            elif self._control(item):
                break
        if other._pong is not None:
            other._answer()

    def _control(self, control: Control) -> bool:
        """Whether it was the last frame."""
        if control.opcode == PING:
            self._pong = control.payload
            self._answer()
        elif control.opcode == CLOSE:
            self.close_received = True
            self._relay.closing(self, control.payload)
        return self.close_received

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.lost = True
        self._relay.lost(self)

    def set_reading(self, *, going: bool) -> None:
        """Read from this side, or let it wait."""
        if going is not self._reading:
            self._reading = going
            if not self.lost and not self._transport.is_closing():
                (self._transport.resume_reading if going else self._transport.pause_reading)()

    # To this side.

    def pass_on(self, data: bytes) -> None:
        """Data frames of the other side; dropped once a close frame was sent to this side."""
        if not (self.close_sent or self.lost):
            self._transport.write(data)
            self._relay.flowed()

    def pause_writing(self) -> None:
        """This side does not keep up: the other one waits."""
        self._writable = False
        self.other.set_reading(going=False)

    def resume_writing(self) -> None:
        """This side has caught up."""
        self._writable = True
        self.other.set_reading(going=True)
        self._answer()

    def ping(self) -> bool:
        """Whether this side is alive, as far as is known; if it is, asks it once more.

        A side that is not read from, or that has not taken what was written, is not held to be dead.
        """
        alive = self._heard or not self._asked or not self._reading or not self._writable
        self._heard = False
        self._asked = alive and self._may_speak()
        if self._asked:
            self._send(PING, b"")
        return alive

    def close(self, code: int | None, reason: str = "") -> None:
        """Send the close frame, as the last one. Within a frame nothing can be said any more: then the leg is cut."""
        if self.close_sent or self.lost:
            return
        within = self._within()
        if not within:
            self._send(CLOSE, close_payload(code, reason))
        self.close_sent = True
        if within:
            self.abort()

    def end(self) -> None:
        """Say no more, but let this side hang up: closed while it still writes, it might not get to read why."""
        self._lingers = True
        if not self.lost and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
        self.set_reading(going=True)

    def finish(self) -> None:
        """Close the transport once everything is written; one that was brought to its `end` closes by itself."""
        if not (self.lost or self._lingers):
            self._transport.close()

    def abort(self) -> None:
        """Drop the transport."""
        if not self.lost:
            self._transport.abort()

    def _answer(self) -> None:
        """Send the pong that is owed, if this is the moment."""
        if self._pong is not None and self._may_speak():
            self._send(PONG, self._pong)
            self._pong = None

    def _may_speak(self) -> bool:
        return self._writable and not (self.close_sent or self.lost or self._within())

    def _within(self) -> bool:
        """Whether what was written last ends within a frame of the other side's."""
        return self.other.reader.left > 0

    def _send(self, opcode: int, payload: bytes) -> None:
        self._transport.write(frame(opcode, payload, os.urandom(4) if self._masks else None))
