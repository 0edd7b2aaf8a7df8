"""What a handler gets."""

from __future__ import annotations

from typing import Any

from shoal_agent.http.body import Body
from shoal_agent.http.errors import MISSING_QUERY, ApiError
from shoal_agent.http.fields import Fields, parse_json
from shoal_agent.http.wire import Headers, RequestHead, parse_query

MAX_JSON = 64 * 1024 * 1024
"""Bytes of a JSON body."""


class Request:
    """One request. Its body is read by the handler, piece by piece if it likes; what it leaves is thrown away."""

    def __init__(self, head: RequestHead, path: str, query: str, body: Body, peer: str) -> None:
        self.method = head.method
        self.target = head.target
        """As sent: path and query, undecoded, latin-1."""
        self.path = path
        """Decoded; bytes that are no UTF-8 are surrogates, as in Python's names of files."""
        self.query_string = query
        self.headers: Headers = head.headers
        self.body = body
        self.peer = peer
        """The client's IP address."""
        self.params: dict[str, str] = {}
        """Values of the route's `{name}` segments, decoded; that of `{name...}` is undecoded."""
        self._query: list[tuple[str, str]] | None = None

    def queries(self, name: str) -> list[str]:
        """All values of the query field `name`, decoded."""
        if self._query is None:
            self._query = parse_query(self.query_string)
        return [value for key, value in self._query if key == name]

    def query(self, name: str) -> str | None:
        """The first value of the query field `name`, or None."""
        return next(iter(self.queries(name)), None)

    def required_query(self, name: str) -> str:
        """The same. Raises `ApiError` 400 MISSING_QUERY if it is absent or empty."""
        value = self.query(name)
        if not value:
            raise ApiError(400, MISSING_QUERY, f"the query field {name} is required")
        return value

    async def json(self, limit: int = MAX_JSON) -> Any:
        """The first JSON value of the body, whatever the content type. Raises `ApiError` 400, 413."""
        return parse_json(await self.body.whole(limit))

    async def fields(self, *, optional: bool = False) -> Fields:
        """The JSON object in the body, for typed reads. With `optional` an absent body is an empty object."""
        data = await self.body.whole(MAX_JSON)
        return Fields({}) if optional and not data.strip() else Fields(parse_json(data))
