"""One run of code: its stream, which goes on without its client."""

from __future__ import annotations

import asyncio
import time

from shoal_agent.code.events import Event
from shoal_agent.commands import events
from shoal_agent.commands.journal import Journal


class Run:
    """The events of one run, as bytes in `journal`. They begin with ``init`` and end with one terminal event."""

    def __init__(self, identifier: str) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._begun = time.monotonic()
        self.journal = Journal(self._free.clear, self._free.set)
        self.journal.append(events.init(identifier))

    async def emit(self, event: Event) -> None:
        """Appends `event`. Waits while a client that follows is far behind."""
        if "text" in event:
            self.journal.append(events.output(event["type"], [event["text"]]))
        else:
            fields = {name: value for name, value in event.items() if name != "type"}
            self.journal.append(events.event(event["type"], **fields))
        await self._free.wait()

    def end(self, failure: Event | None) -> None:
        """The last event."""
        if failure is None:
            self.journal.append(events.complete(max(time.monotonic() - self._begun, 0.001)))
        else:
            self.journal.append(events.event("error", error=failure["error"]))
        self.journal.finish()
