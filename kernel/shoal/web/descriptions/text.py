"""A text of the document: a sentence, or a dict that adds formats and examples to it."""

from __future__ import annotations

from typing import Any

Text = str | dict[str, Any]


def time_text(description: str) -> Text:
    return {"description": description, "format": "date-time", "examples": ["2026-01-31T12:00:00Z"]}


def text(description: str, *examples: Any) -> Text:
    return {"description": description, "examples": list(examples)}


def as_fields(text: Text) -> dict[str, Any]:
    """A text as keys of a schema or parameter."""
    return {"description": text} if isinstance(text, str) else text


Schemas = dict[str, tuple[str, dict[str, Text]]]
"""By schema: its own text, and those of its properties."""
