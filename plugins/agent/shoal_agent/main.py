"""The program: reads its options, listens, and serves until SIGTERM."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from shoal_agent import later, options, signals
from shoal_agent.listening import listen


def main(arguments: Sequence[str]) -> int:
    """Runs the agent. Returns its exit status: 2 for wrong options, 1 if it cannot listen."""
    gc.disable()  # what is imported stays: to look for garbage in it takes a tenth of the start
    try:
        given = options.parse(arguments, os.environ)
    except ValueError as error:
        sys.stderr.write(f"shoal_agent: {error}\n")
        return 2
    signals.hold_ends()
    try:
        listener = listen(given.host, given.port)
    except OSError as error:
        sys.stderr.write(f"shoal_agent: cannot listen on {given.host}:{given.port}: {error.strerror}\n")
        return 1
    later.import_asyncio()
    from shoal_agent.serving import run  # most of the agent: whoever connects meanwhile waits, and is not refused

    return run(given, listener)
