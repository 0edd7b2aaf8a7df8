"""What is kept on disk as JSON, paths in it as texts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def encode(record: object) -> bytes:
    """The record as JSON. Raises TypeError for what is neither JSON nor a path."""
    return msgspec.json.encode(record, enc_hook=os.fspath)


def decode(content: bytes, kind: type[T]) -> T:
    """The record in JSON. Raises MsgspecError if it is not of that kind."""
    return msgspec.json.decode(content, type=kind, dec_hook=_path)


def _path(kind: type[Any], text: Any) -> Any:
    if kind is Path and isinstance(text, str):
        return Path(text)
    raise NotImplementedError(kind)
