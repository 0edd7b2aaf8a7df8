"""Upload bodies, piece by piece if need be."""

from __future__ import annotations

import json
from typing import Any

import httpx
from tests.agent.files.place import Place

BOUNDARY = "frontier"
TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
END = f"--{BOUNDARY}--\r\n".encode()


def part(name: str, content: bytes, filename: str | None = "f") -> bytes:
    """One part with its boundary."""
    disposition = f'form-data; name="{name}"' + ("" if filename is None else f'; filename="{filename}"')
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


def metadata(path: str, **more: Any) -> bytes:
    """A metadata part."""
    return part("metadata", json.dumps({"path": path, **more}).encode())


def send(place: Place, *parts: bytes) -> httpx.Response:
    """Uploads these parts."""
    return place.http.post("/files/upload", content=b"".join(parts) + END, headers=TYPE)


def upload(place: Place, path: str, content: bytes, **more: Any) -> httpx.Response:
    """Uploads one file."""
    return send(place, metadata(path, **more), part("file", content))
