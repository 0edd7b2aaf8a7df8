"""What `/openapi.json` says to users of each schema and property. Docstrings, written for maintainers, stay out."""

from __future__ import annotations

from typing import Any, Final

from shoal.web.descriptions.create import CREATE
from shoal.web.descriptions.resources import RESOURCES
from shoal.web.descriptions.text import Schemas, Text, as_fields, text

__all__ = ["HEADERS", "PATH_PARAMETERS", "SCHEMAS", "as_fields", "described"]

_UUID = "7a1c0f5e-5d0c-4b4e-9f5c-0c8f1c9f2b11"

SCHEMAS: Final[Schemas] = {**CREATE, **RESOURCES}

PATH_PARAMETERS: Final[dict[str, Text]] = {
    "sandbox_id": text("Identifier of the sandbox.", _UUID),
    "snapshot_id": text("Identifier of the snapshot.", _UUID),
    "port": "Port in the sandbox, 1 to 65535.",
}

HEADERS: Final[dict[str, str]] = {
    "X-Request-ID": "Identifier of the request, as the log has it.",
    "Location": "Path of what was created.",
    "Retry-After": "Seconds to wait before the next try.",
    "Deprecation": "`true` where the form that was asked for is deprecated.",
}


def described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema ``name`` with its texts in place of what was generated from docstrings; a plugin's as it is."""
    if name not in SCHEMAS:
        return schema
    own, properties = SCHEMAS[name]
    kept = {key: value for key, value in schema.items() if key != "description"}
    kept["description"] = own
    if "properties" in kept:
        found = kept["properties"].items()
        kept["properties"] = {key: {**value, **as_fields(properties.get(key, {}))} for key, value in found}
    return kept
