"""Paths as clients write them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from shoal_agent.http.errors import INVALID_REQUEST_BODY, ApiError

_VARIABLE = r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*|[0-9]))"


def clean(path: str) -> str:
    """Without `.`, `..`, double and last slashes; links are not looked at."""
    cleaned = os.path.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


class Paths:
    """How one daemon reads paths: `~` and variables from `environment`, relative ones from its working directory."""

    def __init__(self, environment: Mapping[str, str] | None, home: str | None, base: str | None = None) -> None:
        """`environment` None leaves variables as they are; `base` None is the working directory."""
        self._environment = environment
        self._home = home
        self._base = base

    @classmethod
    def of_daemon(cls, variables: Mapping[str, str]) -> Paths:
        """As the agent itself reads them: by its variables as they were at its start, HOME among them."""
        return cls(variables, variables.get("HOME"))

    def resolve(self, path: str, code: str = INVALID_REQUEST_BODY) -> str:
        """The absolute, cleaned path. Raises `ApiError` 400 `code`, for variables that are not set among others."""
        if not path:
            raise ApiError(400, code, "the path is empty")
        if "\0" in path:
            raise ApiError(400, code, "the path holds a NUL")
        expanded = self._variables(self._tilde(path, code), code)
        try:
            expanded.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise ApiError(400, code, "the path is no valid Unicode") from None
        return clean(os.path.join(self._base or os.getcwd(), expanded))

    def _tilde(self, path: str, code: str) -> str:
        if path != "~" and not path.startswith("~/"):
            return path
        if not self._home:
            raise ApiError(400, code, f"the path {path!r} needs a home directory, and there is none")
        return self._home + path[1:]

    def _variables(self, path: str, code: str) -> str:
        if self._environment is None or "$" not in path:
            return path
        environment = self._environment
        missing: list[str] = []

        def value(match: re.Match[str]) -> str:
            name = match[1] if match[1] is not None else match[2]
            if name not in environment:
                missing.append(name)
            return environment.get(name, "")

        expanded = re.sub(_VARIABLE, value, path)
        if missing:
            raise ApiError(400, code, f"the path {path!r} uses variables that are not set: {', '.join(missing)}")
        return expanded
