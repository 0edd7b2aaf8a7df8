"""Waiting for a sidecar to answer (docs/wire/docker.md section 8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from shoal.models.plan import Probe

TRY_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.2
_TRIES_PER_LOOK: Final = 5


async def await_ready(probe: Probe, address: tuple[str, int], alive: Callable[[], Awaitable[None]]) -> None:
    """Return once ``address`` answers the probe with 2xx.

    Args:
        alive: raises if the container has ended, so that nobody waits for it to the end; asked now and then.

    Raises TimeoutError after ``probe.timeout_seconds``, and what ``alive`` raises.
    """
    async with asyncio.timeout(probe.timeout_seconds):
        tries = 0
        while not await _answers(probe, *address):
            tries += 1
            if tries % _TRIES_PER_LOOK == 0:
                await alive()
            await asyncio.sleep(PAUSE_SECONDS)


async def _answers(probe: Probe, host: str, port: int) -> bool:
    lines = [f"GET {probe.path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in probe.headers.items()]
    try:
        async with asyncio.timeout(TRY_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write("\r\n".join([*lines, "", ""]).encode())
                status = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, ValueError):  # TimeoutError is an OSError; ValueError: a line that never ends
        return False
    words = status.split()
    return len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].startswith(b"2")
