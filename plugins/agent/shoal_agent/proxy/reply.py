"""The head of an application's answer. Lenient: what it sends is passed on if it can be read at all."""

from __future__ import annotations

import re
from typing import NamedTuple

from shoal_agent.http.body import Body
from shoal_agent.http.errors import ProtocolError
from shoal_agent.http.inbox import ConnectionInbox

MAX_HEAD = 256 * 1024
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Fields of one connection, which are not passed on."""
_STATUS = re.compile(rb"HTTP/1\.([01]) +([1-9][0-9]{2})(?: .*)?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
Fields = list[tuple[str, str]]


class Reply(NamedTuple):
    """An answer's head."""

    status: int
    fields: Fields
    persistent: bool
    """Whether the connection can be used again after the body."""

    def values(self, name: str) -> str:
        """The values of the field `name` (lower case), joined by commas, in lower case."""
        return ",".join(value for field, value in self.fields if field.lower() == name).lower()

    def passed_on(self) -> Fields:
        """The fields for the client."""
        dropped = HOP_BY_HOP | {token.strip() for token in self.values("connection").split(",")}
        return [(name, value) for name, value in self.fields if name.lower() not in dropped]


async def read_reply(inbox: ConnectionInbox) -> Reply:
    """The next head that is no interim one. Raises `Disconnected`, `ProtocolError`."""
    while True:
        line = (await inbox.until(b"\n", MAX_HEAD)).rstrip(b"\r\n")
        status = _STATUS.fullmatch(line)
        if status is None:
            raise ProtocolError(502, "the application does not speak HTTP/1.1")
        fields = await _fields(inbox)
        code = int(status[2])
        if code == 101 or code >= 200:
            return Reply(code, fields, _persistent(status[1] == b"1", fields))


async def _fields(inbox: ConnectionInbox) -> Fields:
    budget = MAX_HEAD
    fields: Fields = []
    while line := (await inbox.until(b"\n", budget)).rstrip(b"\r\n"):
        budget -= len(line)
        if line[:1] in b" \t" and fields:
            name, value = fields.pop()
            fields.append((name, f"{value} {_text(line)}"))
            continue
        raw, colon, rest = line.partition(b":")
        if colon and _NAME.fullmatch(raw):
            fields.append((raw.decode("ascii"), _text(rest)))
    return fields


def _text(value: bytes) -> str:
    return value.strip(b" \t").replace(b"\0", b"").replace(b"\r", b" ").decode("latin-1")


def _persistent(newer: bool, fields: Fields) -> bool:
    tokens = {
        token.strip() for name, value in fields if name.lower() == "connection" for token in value.lower().split(",")
    }
    return "close" not in tokens if newer else "keep-alive" in tokens


def body_of(reply: Reply, method: str, inbox: ConnectionInbox) -> Body | None:
    """The body of an answer; None if it goes on until the connection ends. Raises `ProtocolError`."""
    if method == "HEAD" or reply.status in (204, 304):
        return Body(inbox, 0, None)
    if coding := reply.values("transfer-encoding"):
        return Body(inbox, -1, None) if coding.rsplit(",", 1)[-1].strip() == "chunked" else None
    lengths = {part.strip() for part in reply.values("content-length").split(",") if part.strip()}
    if not lengths:
        return None
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit() and len(length) < 19):
        raise ProtocolError(502, "the application's Content-Length makes no sense")
    return Body(inbox, int(length), None)
