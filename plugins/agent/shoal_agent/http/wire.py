"""Heads of requests and of answers, as bytes. Strict: what two parsers could read differently is refused."""

from __future__ import annotations

import re
import time

from shoal_agent.http.errors import ProtocolError

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, request line included."""
REASONS = {
    101: "Switching Protocols", 200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 304: "Not Modified", 307: "Temporary Redirect", 400: "Bad Request", 401: "Unauthorized",
    403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 409: "Conflict", 412: "Precondition Failed",
    413: "Content Too Large", 416: "Range Not Satisfiable", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}  # fmt: skip
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~\x80-\xff]+) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*\r\n")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Headers:
    """Header fields in the order in which they came; names match in any case."""

    __slots__ = ("_values", "fields")

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields
        """Name as sent, value; latin-1."""
        self._values: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            known = self._values.get(key)
            self._values[key] = value if known is None else f"{known}, {value}"

    def get(self, name: str) -> str | None:
        """The value of the field `name` (lower case), several joined by a comma, or None."""
        return self._values.get(name)

    def has_token(self, name: str, token: str) -> bool:
        """Whether the comma-separated field `name` (lower case) holds `token` (lower case)."""
        value = self._values.get(name)
        return value is not None and any(part.strip().lower() == token for part in value.split(","))


class RequestHead:
    """A request's head."""

    __slots__ = ("headers", "length", "method", "minor", "target")

    def __init__(self, method: str, target: str, minor: int, headers: Headers) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        """1 in HTTP/1.1."""
        self.headers = headers
        self.length = _body_length(headers, minor)
        """Bytes of the body; -1 for a chunked one."""

    def keeps_alive(self) -> bool:
        """Whether the client wants to go on with this connection."""
        if self.minor == 0:
            return self.headers.has_token("connection", "keep-alive")
        return not self.headers.has_token("connection", "close")


def parse_head(data: bytes) -> RequestHead:
    """`data` reads up to the end of the blank line. Raises `ProtocolError`."""
    line = _REQUEST_LINE.match(data)
    if line is None:
        raise ProtocolError(400, "malformed request line")
    fields: list[tuple[str, str]] = []
    position, end = line.end(), len(data) - 2
    for field in _FIELD.finditer(data, position, end):
        if field.start() != position:
            break
        position = field.end()
        fields.append((field[1].decode("ascii"), field[2].decode("latin-1")))
    if position != end:
        raise ProtocolError(400, "malformed header field")
    return RequestHead(line[1].decode("ascii"), line[2].decode("latin-1"), line[3] == b"1", Headers(fields))


def _body_length(headers: Headers, minor: int) -> int:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None or minor == 0:
            raise ProtocolError(400, "unsupported transfer encoding")
        return -1
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise ProtocolError(400, "malformed Content-Length")
    return int(length)


def render_head(status: int, fields: list[tuple[str, str]]) -> bytes:
    """The head of an answer, with a Date unless `fields` hold it. Raises ValueError for a field that would break it."""
    lines, dated = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n"], False
    for name, value in fields:
        dated = dated or name.lower() == "date"
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the header field {name} holds a line end")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n" if dated else f"Date: {http_date(time.time())}\r\n\r\n")
    return "".join(lines).encode("latin-1")


def http_date(seconds: float) -> str:
    """A Unix time as HTTP writes it; the same in every locale."""
    t = time.gmtime(seconds)
    return (
        f"{_DAYS[t.tm_wday]}, {t.tm_mday:02d} {_MONTHS[t.tm_mon - 1]} {t.tm_year:04d} "
        f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} GMT"
    )


def unquote(text: str) -> str:
    """Percent-decoding; bytes that are no UTF-8 become surrogates, as in names of files. Raises ValueError."""
    if "%" not in text:
        return text.encode("latin-1").decode("utf-8", "surrogateescape")
    first, *rest = text.encode("latin-1").split(b"%")
    parts = [first]
    for part in rest:
        if len(part) < 2 or not part[:2].isalnum():
            raise ValueError("malformed percent encoding")
        parts += (bytes.fromhex(part[:2].decode("ascii")), part[2:])
    return b"".join(parts).decode("utf-8", "surrogateescape")


def parse_query(text: str) -> list[tuple[str, str]]:
    """The pairs of a query in their order. A pair that is not well encoded is left out."""
    pairs = []
    for part in filter(None, text.split("&")):
        name, _, value = part.replace("+", " ").partition("=")
        try:
            pairs.append((unquote(name), unquote(value)))
        except ValueError:
            continue
    return pairs
