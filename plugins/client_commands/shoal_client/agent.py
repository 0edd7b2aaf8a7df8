"""Commands, files and directories inside a sandbox, through the server's proxy to its agent (docs/wire/execd.md)."""

from __future__ import annotations

import json
import shlex
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from typing import Any, BinaryIO, Final
from urllib.parse import quote, urlencode

from shoal_client.connection import JSON, ClientError, ServerClient, reaching
from shoal_client.events import CommandOutcome, follow

PORT: Final = 44772
CHUNK: Final = 256 * 1024


class AgentClient:
    """The agent of one sandbox."""

    def __init__(self, server: ServerClient, sandbox_id: str) -> None:
        self.server = server
        self.path = f"/v1/sandboxes/{quote(sandbox_id, safe='')}/proxy/{PORT}"

    def run(self, request: Mapping[str, Any], printed: Callable[[str, str], None]) -> CommandOutcome:
        """Run a command to its end; an interrupt from the keyboard is passed on once, a second one leaves.

        Args:
            request: the body of ``POST /command``, with ``argv`` or ``command``.
            printed: called with ``stdout`` or ``stderr`` and text.

        Raises ClientError, KeyboardInterrupt.
        """
        try:
            return self._run(request, printed)
        except ClientError as error:
            argv = request.get("argv")
            if argv is None or error.status != 400 or "command" not in error.message:
                raise
        return self._run({**request, "argv": None, "command": shlex.join(argv)}, printed)  # an agent without argv

    def _run(self, request: Mapping[str, Any], printed: Callable[[str, str], None]) -> CommandOutcome:
        ids: list[str] = []
        content = json.dumps({key: value for key, value in request.items() if value is not None}).encode()
        asked = self.server.open("POST", f"{self.path}/command", content, {"Content-Type": JSON}, timeout=None)
        with asked as answer, self._interruptible(ids):
            return follow(self._lines(answer), ids.append, printed)

    def _lines(self, answer: HTTPResponse) -> Iterator[bytes]:
        while True:
            with reaching(self.server):
                line = answer.readline()
            if not line:
                return
            yield line

    @contextmanager
    def _interruptible(self, ids: list[str]) -> Iterator[None]:
        """The first interrupt from the keyboard goes to the command, whose output is still read; the next is raised."""

        def interrupt(*_: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if not ids:
                raise KeyboardInterrupt
            threading.Thread(target=self._try_interrupt, args=(ids[0],), daemon=True).start()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _try_interrupt(self, command_id: str) -> None:
        with suppress(ClientError):
            self.interrupt(command_id)

    def interrupt(self, command_id: str) -> None:
        """Ask the command to end; it is killed if it has not after three seconds."""
        self.server.json("DELETE", f"{self.path}/command?{urlencode({'id': command_id})}")

    def info(self, path: str) -> dict[str, Any] | None:
        """What is known of a file; None if there is none."""
        try:
            found: dict[str, dict[str, Any]] = self.server.json(
                "GET", f"{self.path}/files/info?{urlencode({'path': path})}"
            )
        except ClientError as error:
            if error.status == 404:
                return None
            raise
        return found[path]

    def entries(self, path: str) -> Sequence[dict[str, Any]]:
        """Everything below a directory, parents before what they hold."""
        query = urlencode({"path": path, "depth": "1000"})
        found: list[dict[str, Any]] = self.server.json("GET", f"{self.path}/directories/list?{query}")
        return found

    def make_directory(self, path: str, mode: int) -> None:
        """Make it and its parents; one that is there stays as it is."""
        self.server.json("POST", f"{self.path}/directories", {path: {"mode": mode}})

    def download(self, path: str) -> Iterator[bytes]:
        """A file's content, piece by piece."""
        query = urlencode({"path": path})
        with self.server.open("GET", f"{self.path}/files/download?{query}", timeout=None) as answer:
            while True:
                with reaching(self.server):
                    piece = answer.read(CHUNK)
                if not piece:
                    return
                yield piece

    def upload(self, path: str, mode: int, file: BinaryIO) -> None:
        """Write a file; ``mode`` as octal digits in a decimal number, 644."""
        boundary = uuid.uuid4().hex
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="metadata"; filename="metadata"\r\n'
            f"Content-Type: {JSON}\r\n\r\n{json.dumps({'path': path, 'mode': mode})}\r\n"
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )

        def parts() -> Iterator[bytes]:
            yield head.encode()
            while piece := file.read(CHUNK):
                yield piece
            yield f"\r\n--{boundary}--\r\n".encode()

        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        asked = self.server.open("POST", f"{self.path}/files/upload", parts(), kind, timeout=None)
        with asked as answer, reaching(self.server):
            answer.read()
