"""Requests to a Jupyter server: one connection each, JSON in and out."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from shoal_agent.http.wire import Headers

if TYPE_CHECKING:
    import ssl

LIMIT = 64 * 1024
"""Bytes of an answer's head."""


class JupyterError(Exception):
    """The server cannot be reached or refuses; `status` is its HTTP status, 0 where there is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Address:
    """Where a server is. Raises ValueError for a URL that is neither http nor https."""

    def __init__(self, url: str, token: str | None) -> None:
        from urllib.parse import urlsplit  # only where a server is named

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"JUPYTER_HOST must be a URL of http or https, not {url!r}")
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self.authority = parts.netloc.rpartition("@")[2]
        self.base = parts.path.rstrip("/")
        self._token = token

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}{self.base}"

    def head(self, method: str, path: str, fields: list[tuple[str, str]]) -> bytes:
        """A request's head, with the token in it."""
        own = [("Host", self.authority), *fields]
        if self._token:
            own.append(("Authorization", f"token {self._token}"))
        lines = [f"{method} {self.base}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in own)]
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection. Raises `JupyterError`."""
        try:
            async with asyncio.timeout(10):
                return await asyncio.open_connection(self.host, self.port, limit=LIMIT, ssl=self._tls())
        except (OSError, TimeoutError) as error:
            raise JupyterError(f"the Jupyter server at {self} does not answer: {error or 'timeout'}") from None

    def _tls(self) -> ssl.SSLContext | None:
        if not self.secure:
            return None
        try:
            import ssl
        except ImportError:
            raise JupyterError(f"{self} cannot be reached: this agent has no TLS") from None

        return ssl.create_default_context()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, Headers]:
    """An answer's status and fields. Raises `JupyterError`."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = [line.partition(":")[::2] for line in lines[1:] if line]
        return int(lines[0].split()[1]), Headers([(name, value.strip()) for name, value in fields])
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError, IndexError):
        raise JupyterError("the Jupyter server's answer is no HTTP") from None


async def request(address: Address, method: str, path: str, body: Any = None, seconds: float = 60.0) -> Any:
    """The answer's JSON; None where it has no body. Raises `JupyterError`, also for statuses from 400 on."""
    try:
        async with asyncio.timeout(seconds):
            return await _exchange(address, method, path, body)
    except TimeoutError:
        raise JupyterError(f"the Jupyter server at {address} does not answer {method} {path}") from None


async def _exchange(address: Address, method: str, path: str, body: Any) -> Any:
    data = json.dumps(body).encode() if body is not None else b""
    fields = [("Connection", "close"), ("Accept", "application/json"), ("Content-Length", str(len(data)))]
    reader, writer = await address.connect()
    try:
        writer.write(address.head(method, path, [*fields, ("Content-Type", "application/json")]) + data)
        await writer.drain()
        status, headers = await read_head(reader)
        answer = await _body(reader, headers)
    except (OSError, asyncio.IncompleteReadError) as error:
        raise JupyterError(f"the Jupyter server at {address} breaks off: {error}") from None
    finally:
        writer.close()
    return _judge(status, answer, f"{method} {path}")


def _judge(status: int, answer: bytes, what: str) -> Any:
    try:
        value = json.loads(answer) if answer.strip() else None
    except ValueError:
        value = None
    if status >= 400:
        reason = value.get("message") or value.get("reason") if isinstance(value, dict) else None
        raise JupyterError(f"the Jupyter server answers {what} with {status}{f': {reason}' if reason else ''}", status)
    return value


async def _body(reader: asyncio.StreamReader, headers: Headers) -> bytes:
    if headers.has_token("transfer-encoding", "chunked"):
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        return b"".join(parts)
    length = headers.get("content-length")
    return await reader.readexactly(int(length)) if length is not None else await reader.read()
