"""Applications behind the port proxy."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Echo(BaseHTTPRequestHandler):
    """Tells what arrived."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1  # type: ignore[attr-defined]  # of App

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name in the library
        """Quiet."""

    def _answer(self) -> None:
        body = self._body()
        path = self.path.partition("?")[0]
        if path == "/redirect":
            self._send(302, b"", Location="/there")
        elif path == "/chunks":
            self._chunks()
        elif path == "/date":
            self.send_response_only(200)
            for name, value in (("Date", "then"), ("Server", "mine"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")):
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.startswith("/status/"):
            self._send(int(path[8:]), b"")
        elif path == "/bytes":
            self._send(200, b"x" * 5_000_000)
        else:
            fields = [[name.lower(), value] for name, value in self.headers.items()]
            told = {"method": self.command, "path": self.path, "fields": fields, "body": body.decode("latin-1")}
            self._send(200, json.dumps(told).encode())

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes, **fields: str) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _chunks(self) -> None:
        """A second chunk once the test says so."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        go_on: threading.Event = self.server.go_on  # type: ignore[attr-defined]  # of App
        go_on.wait(20)
        self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_PROPFIND = _answer  # noqa: N815


class App(ThreadingHTTPServer):
    """Listens on a free port of loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.connections = 0
        self.go_on = threading.Event()
        self.port = self.server_address[1]


@contextlib.contextmanager
def running(app: App) -> Iterator[App]:
    thread = threading.Thread(target=app.serve_forever, daemon=True)
    thread.start()
    yield app
    app.shutdown()
    app.server_close()


@contextlib.contextmanager
def raw(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """An application that does with each connection what it likes; gives its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_talk, args=(talk, connection), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _talk(talk: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        talk(connection)
