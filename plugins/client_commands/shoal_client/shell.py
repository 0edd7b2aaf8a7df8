"""``shoal shell``: a terminal in a sandbox (docs/wire/execd.md section 6)."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command
from shoal_client.agent import AgentClient
from shoal_client.connection import ClientError, ServerClient, add_arguments
from shoal_client.sandboxes import SandboxClient
from shoal_client.websocket import BINARY, TEXT, ClientWebSocket

_STDIN, _STDOUT, _STDERR, _REPLAY = 0x00, 0x01, 0x02, 0x03
_OFFSET_BYTES: Final = 8
LOST: Final = 255


class ShellCommand(Command):
    """A terminal."""

    name = "shell"
    help = "open a terminal in a running sandbox"

    def arguments(self, parser: ArgumentParser) -> None:
        """The sandbox, and what to run."""
        add_arguments(parser)
        parser.add_argument("sandbox", metavar="ID", help="an id, or the beginning of one")
        parser.add_argument("-w", "--workdir", metavar="DIR")
        parser.add_argument("-c", dest="script", metavar="SCRIPT", help="instead of an interactive shell")

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Returns the shell's exit code. Raises ClientError."""
        server = ServerClient.of(arguments)
        agent = AgentClient(server, SandboxClient(server).find(arguments.sandbox))
        wanted = {"cwd": arguments.workdir, "command": arguments.script}
        made = server.json("POST", f"{agent.path}/pty", {key: value for key, value in wanted.items() if value})
        path = f"{agent.path}/pty/{made['session_id']}"
        try:
            with ClientWebSocket(server, f"{path}/ws") as socket, _raw_terminal():
                return LocalTerminal(socket).run()
        finally:
            with suppress(ClientError):
                server.json("DELETE", path)


class LocalTerminal:
    """Bytes both ways between this process's terminal and the sandbox's."""

    def __init__(self, socket: ClientWebSocket) -> None:
        self._socket = socket

    def run(self) -> int:
        """Until the shell ends; returns its exit code."""
        self._resize()
        if sys.stdout.isatty():
            signal.signal(signal.SIGWINCH, lambda *_: self._resize())
        over, wake = os.pipe()
        reader = threading.Thread(target=self._pump, args=(over,), daemon=True)
        reader.start()
        try:
            return self._listen()
        finally:
            os.close(wake)
            reader.join(1.0)

    def _pump(self, over: int) -> None:
        """Standard input into the sandbox, until the session is over."""
        stdin = sys.stdin.fileno()
        with suppress(ClientError, OSError):
            while True:
                ready, _, _ = select.select([stdin, over], [], [])
                if over in ready:
                    return
                data = os.read(stdin, 65536)
                self._socket.send(BINARY, bytes([_STDIN]) + (data or b"\x04"))  # the end of a pipe is Ctrl-D
                if not data:
                    return

    def _listen(self) -> int:
        code = LOST
        while (message := self._socket.receive()) is not None:
            kind, payload = message
            if kind == BINARY:
                _show(payload)
            else:
                said = json.loads(payload)
                if said.get("type") == "exit":
                    code = int(said.get("exit_code", 0))
                elif said.get("type") == "error":
                    raise ClientError(str(said.get("error") or said.get("code")))
        return code if 0 <= code < 256 else LOST

    def _resize(self) -> None:
        size = shutil.get_terminal_size()
        with suppress(ClientError):
            self._socket.send(TEXT, json.dumps({"type": "resize", "cols": size.columns, "rows": size.lines}).encode())


def _show(payload: bytes) -> None:
    kind, data = payload[:1], payload[1:]
    if kind == bytes([_REPLAY]):
        data = data[_OFFSET_BYTES:]
    file = sys.stderr if kind == bytes([_STDERR]) else sys.stdout
    file.buffer.write(data)
    file.flush()


@contextmanager
def _raw_terminal() -> Iterator[None]:
    """Keys go to the sandbox one by one, Ctrl-C too; the terminal is as before at the end."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setraw(sys.stdin, termios.TCSADRAIN)  # the default throws away what was typed meanwhile
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
