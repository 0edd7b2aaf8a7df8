"""Which handler serves which method and path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer

Handler = Callable[[Request], Awaitable[Answer | None]]
ANY = "*"
"""Stands for every method, HEAD and OPTIONS included."""


class Routes:
    """A table of routes.

    A path is made of literal segments and of `{name}`, which stands for one segment that is not empty; the last one
    may be `{name...}`, which stands for all that follows, slashes included, undecoded, possibly nothing. Literal
    segments win over names.
    """

    def __init__(self) -> None:
        self._exact: dict[tuple[str, str], Handler] = {}
        self._patterns: dict[int, list[tuple[str, list[str], Handler]]] = {}
        self._prefixes: list[tuple[str, list[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Registers `handler`; `method` in capitals, or `ANY`."""
        segments = path.split("/")
        if "{" not in path:
            self._exact[method, path] = handler
        elif path.endswith("...}"):
            self._prefixes.append((method, segments, handler))
        else:
            self._patterns.setdefault(len(segments), []).append((method, segments, handler))

    def get(self, path: str, handler: Handler) -> None:
        self.add("GET", path, handler)

    def post(self, path: str, handler: Handler) -> None:
        self.add("POST", path, handler)

    def delete(self, path: str, handler: Handler) -> None:
        self.add("DELETE", path, handler)

    def find(self, method: str, path: str, raw_path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler for a decoded path and the values of its names, or None."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        segments = path.split("/")
        for wanted, pattern, handler in self._patterns.get(len(segments), ()):
            if wanted in (method, ANY) and (params := _match(pattern, segments)) is not None:
                return handler, params
        raw = raw_path.split("/")
        for wanted, pattern, handler in self._prefixes:
            known = len(pattern) - 1
            if wanted in (method, ANY) and len(raw) >= known:
                params = _match(pattern[:known], raw[:known])
                if params is not None:
                    return handler, params | {pattern[-1][1:-4]: "/".join(raw[known:])}
        return None


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            if not segment:
                return None
            params[wanted[1:-1]] = segment
        elif wanted != segment:
            return None
    return params
