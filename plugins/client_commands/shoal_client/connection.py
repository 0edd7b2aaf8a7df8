"""Which server, which key, and one request to it."""

from __future__ import annotations

import json
import os
import ssl
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from shoal.errors import ShoalError

DEFAULT: Final = "127.0.0.1:8080"
FILE: Final = "~/.opensandbox/config.toml"
"""Where the OpenSandbox command line keeps its server and key; the first start of a server writes it."""
KEY_HEADER: Final = "OPEN-SANDBOX-API-KEY"
JSON: Final = "application/json"
Content = bytes | Iterable[bytes]


class ClientError(ShoalError):
    """A request failed; the message is for the person at the terminal.

    Attributes:
        status: the server's; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0, code: str = "CLIENT::FAILED") -> None:
        super().__init__(code, message)
        self.status = status  # type: ignore[misc]  # of the answer, not of a class of failures


def add_arguments(parser: ArgumentParser) -> None:
    """``--server`` and ``--api-key``."""
    parser.add_argument(
        "--server",
        metavar="URL",
        help=f"default: $OPEN_SANDBOX_DOMAIN, else {FILE}, else {DEFAULT}",
    )
    parser.add_argument("--api-key", metavar="KEY", help=f"default: $OPEN_SANDBOX_API_KEY, else {FILE}")


class ServerClient:
    """One server.

    Args:
        address: ``host:port``, or a URL with an optional path prefix.
        key: the API key; None for none.
    """

    def __init__(self, address: str, key: str | None) -> None:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ClientError(f"{address!r} is no address of a server, such as 127.0.0.1:8080 or https://box.example")
        self.host, self.port, self.tls = parts.hostname, parts.port, parts.scheme == "https"
        self.prefix = parts.path.rstrip("/").removesuffix("/v1")
        self.key = key

    @classmethod
    def of(cls, arguments: Namespace) -> ServerClient:
        """The server that the arguments, the environment or the file name, in this order."""
        kept = _kept()
        address = arguments.server or os.environ.get("OPEN_SANDBOX_DOMAIN") or kept.get("domain") or DEFAULT
        key = arguments.api_key or os.environ.get("OPEN_SANDBOX_API_KEY") or kept.get("api_key")
        return cls(str(address), str(key) if key else None)

    def connect(self, timeout: float | None = 60.0) -> HTTPConnection:
        """A connection to it, not opened yet. ``timeout`` in seconds; None waits for ever."""
        if self.tls:
            return HTTPSConnection(self.host, self.port, timeout=timeout, context=ssl.create_default_context())
        return HTTPConnection(self.host, self.port, timeout=timeout)

    def headers(self) -> dict[str, str]:
        """Those that say who asks."""
        return {KEY_HEADER: self.key} if self.key else {}

    def json(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """One request of the API and its answer, decoded; None for an empty one. Raises ClientError."""
        content = None if body is None else json.dumps(body).encode()
        given = {**(headers or {}), **({} if content is None else {"Content-Type": JSON})}
        with self.open(method, path, content, given) as answer, reaching(self):
            text = answer.read()
        return json.loads(text) if text else None

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Iterator[HTTPResponse]:
        """The answer to one request; the caller reads it within `reaching`. Raises ClientError from status 400 on."""
        connection = self.connect(timeout)
        try:
            with reaching(self):
                connection.request(
                    method,
                    self.prefix + path,
                    content,
                    {**self.headers(), **(headers or {})},
                    encode_chunked=content is not None and not isinstance(content, bytes),
                )
                answer = connection.getresponse()
                if answer.status >= 400:
                    raise failure(answer.status, answer.read(), self)
            yield answer  # outside: a failure of what the caller does with it is not the server's
        finally:
            connection.close()


@contextmanager
def reaching(server: ServerClient) -> Iterator[None]:
    """Turn a failure to get an answer into ClientError."""
    try:
        yield
    except (OSError, HTTPException) as error:
        place = f"{server.host}:{server.port or (443 if server.tls else 80)}"
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ClientError(f"the server at {place} cannot be reached: {reason}; is `shoal serve` running?") from error


def failure(status: int, text: bytes, server: ServerClient) -> ClientError:
    """What the server or the agent says of a failure."""
    try:
        said = json.loads(text)
        code, message = str(said.get("code") or ""), str(said.get("message") or said.get("error") or "")
    except (ValueError, AttributeError):
        code, message = "", text[:200].decode("utf-8", "replace").strip()
    if status == 401:
        hint = "wrong API key" if server.key else "no API key was given"
        message = f"{hint}: set OPEN_SANDBOX_API_KEY or --api-key"
    return ClientError(f"{message or 'the server failed'} ({code or status})", status, code or "CLIENT::FAILED")


def _kept() -> dict[str, Any]:
    try:
        table = tomllib.loads(Path(FILE).expanduser().read_text(encoding="utf-8")).get("connection", {})
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}
