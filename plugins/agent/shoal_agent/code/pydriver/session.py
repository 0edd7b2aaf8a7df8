"""The driver's main loop: code in, one `done` per run out."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Any, Callable, Dict, List

from . import failures, streams
from .channel import Channel
from .plain import Plain


def main(sock: socket.socket, path: List[str]) -> None:
    """Runs code from `sock` until it closes. `path` becomes `sys.path`."""
    channel = Channel(sock)
    signal.signal(signal.SIGINT, _idle)
    streams.install()
    sys.argv = [""]
    sys.path[:] = [place for place in path if place]
    shell = _shell(channel.show)
    sys.path[:] = path
    channel.send({"type": "ready"})
    while True:
        message = channel.receive()
        if message is None:
            os._exit(0)
        _run(channel, shell, message["code"])


def _idle(number: int, frame: object) -> None:
    """An interrupt between two runs. A handler, since children would inherit that a signal is ignored."""


def _interrupt(channel: Channel) -> None:
    """An interrupt of a run. The agent repeats one that it does not hear of, which a sleep may have missed."""
    channel.send({"type": "interrupted"})
    raise KeyboardInterrupt


def _shell(show: Callable[[Dict[str, Any]], None]) -> Any:
    """IPython's shell where the image has a working IPython, else our own."""
    try:
        from .ipy import WithIPython

        return WithIPython(show)
    except Exception:
        return Plain(show)


def _run(channel: Channel, shell: Any, code: str) -> None:
    streams.renew()
    error = None
    channel.running = True
    try:
        signal.signal(signal.SIGINT, lambda number, frame: _interrupt(channel))
        error = shell.run(code)
        signal.signal(signal.SIGINT, _idle)
    except KeyboardInterrupt as interrupt:
        error = failures.describe(interrupt)
        signal.signal(signal.SIGINT, _idle)
    streams.flush()
    if not channel.mine:
        os._exit(_end_of_child(error))
    channel.running = False
    channel.send({"type": "done", "error": error})


def _end_of_child(error: "Dict[str, Any] | None") -> int:
    """The exit code of a child that the code forked and that came out at its end."""
    if error is None:
        return 0
    if error["ename"] == "SystemExit":
        return int(error["evalue"]) & 255 if error["evalue"].isdigit() else int(error["evalue"] not in ("", "None"))
    sys.stderr.write("\n".join(error["traceback"]) + "\n")
    return 1
