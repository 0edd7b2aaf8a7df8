"""Values as maps from media type to representation, by the `_repr_*_` methods that notebooks use."""

from __future__ import annotations

import base64
from typing import Any, Dict

METHODS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
    ("_repr_javascript_", "application/javascript"),
    ("_repr_pdf_", "application/pdf"),
)


def bundle(value: object) -> Dict[str, Any]:
    """The map of `value`. `text/plain` is always there. Raises what `repr` raises."""
    data: Dict[str, Any] = {"text/plain": repr(value)}
    if isinstance(value, type):
        return data
    for name, kind in METHODS:
        made = _call(value, name)
        if made is not None:
            data[kind] = made
    made = _call(value, "_repr_mimebundle_", include=None, exclude=None)
    if isinstance(made, dict):
        data.update(made)
    return encoded(data)


def encoded(data: Dict[str, Any]) -> Dict[str, Any]:
    """`data` as JSON can carry it: bytes in base64, JSON media types as they are, anything else as text."""
    return {str(kind): _encoded(str(kind), value) for kind, value in data.items() if value is not None}


def _encoded(kind: str, value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if kind.split(";")[0].endswith("json"):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        return "".join(value)
    return str(value)


def _call(value: object, name: str, **arguments: object) -> Any:
    """What the method `name` returns without its metadata; None where there is none or it fails."""
    try:
        if not callable(getattr(type(value), name, None)):
            return None
        made = getattr(value, name)(**arguments)
    except Exception:
        return None
    return made[0] if isinstance(made, tuple) else made
