"""JSON in: the rules of `docs/wire/execd.md` section 1, as typed reads of a body's fields."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from shoal_agent.http.errors import ApiError, invalid_body

_REQUIRED: Any = object()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        found.pop(name, None)  # the last one wins, its place in the order too
        found[name] = value
    return found


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@cache
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def parse_json(body: bytes) -> Any:
    """The first JSON value of `body`; what comes after it is ignored. Raises `ApiError` 400."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise invalid_body("the body is empty; JSON is expected")
    try:
        return _decoder().raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise invalid_body(f"the body is not JSON: {error}") from None


class Fields:
    """A JSON object's fields. Names match in any case, null counts as absent, unknown fields are ignored.

    Every read raises `ApiError` 400 INVALID_REQUEST_BODY when the value is of another type, or absent with no default.
    """

    def __init__(self, value: Any, name: str = "the body") -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise invalid_body(f"{name} must be a JSON object")
        self._values = {key.lower(): item for key, item in value.items() if item is not None}
        self.name = name

    def __contains__(self, field: str) -> bool:
        return field.lower() in self._values

    def text(self, field: str, default: str = _REQUIRED) -> str:
        """A string."""
        value = self._get(field, default)
        if not isinstance(value, str):
            raise invalid_body(f"{field} must be a string")
        return whole(value)

    def flag(self, field: str, default: bool = False) -> bool:
        """A JSON boolean."""
        value = self._get(field, default)
        if not isinstance(value, bool):
            raise invalid_body(f"{field} must be true or false")
        return value

    def integer(self, field: str, default: int = _REQUIRED, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """An integer from `least` to `most`."""
        value = self._get(field, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise invalid_body(f"{field} must be an integer")
        if not least <= value <= most:
            raise invalid_body(f"{field} must be between {least} and {most}")
        return value

    def optional_integer(self, field: str, *, least: int = 0, most: int = 2**63 - 1) -> int | None:
        """The same, or None if absent."""
        return self.integer(field, least=least, most=most) if field in self else None

    def texts(self, field: str) -> list[str]:
        """An array of strings; empty if absent."""
        value = self._get(field, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise invalid_body(f"{field} must be an array of strings")
        return [whole(item) for item in value]

    def text_map(self, field: str) -> dict[str, str]:
        """An object of strings, its keys as sent; empty if absent. A null in it counts as an empty string."""
        value = self._get(field, {})
        if not isinstance(value, dict) or not all(item is None or isinstance(item, str) for item in value.values()):
            raise invalid_body(f"{field} must be an object of strings")
        return {whole(key): whole(item or "") for key, item in value.items()}

    def fields(self, field: str) -> Fields:
        """An object, as fields of its own; empty if absent."""
        return Fields(self._get(field, {}), field)

    def raw(self, field: str) -> Any:
        """The value as it is, None if absent."""
        return self._values.get(field.lower())

    def _get(self, field: str, default: Any) -> Any:
        value = self._values.get(field.lower(), default)
        if value is _REQUIRED:
            raise ApiError(400, "INVALID_REQUEST_BODY", f"{field} is required")
        return value


def whole(text: str) -> str:
    """Half a surrogate pair, which JSON can write and UTF-8 cannot, becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
