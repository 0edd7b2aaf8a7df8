"""Jupyter's messages, as its server speaks them on a WebSocket by default."""

from __future__ import annotations

import json
import os
import struct
import time
from typing import Any

Message = dict[str, Any]


def execute_request(code: str, session: str, *, silent: bool = False) -> Message:
    """A request to run `code`. Its id is in ``header.msg_id``."""
    content = {
        "code": code,
        "silent": silent,
        "store_history": not silent,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    return _request("execute_request", content, session)


def kernel_info_request(session: str) -> Message:
    """A request that every kernel answers and that changes nothing."""
    return _request("kernel_info_request", {}, session)


def _request(kind: str, content: dict[str, Any], session: str) -> Message:
    header = {
        "msg_id": os.urandom(16).hex(),
        "username": "shoal",
        "session": session,
        "msg_type": kind,
        "version": "5.3",
        "date": time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime()),
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }


def decode(data: str | bytes) -> Message | None:
    """A message from the server; None for what is none. Binary ones carry buffers, which are left out."""
    try:
        if isinstance(data, bytes):
            count = struct.unpack_from(">I", data)[0]
            offsets = [*struct.unpack_from(f">{count}I", data, 4), len(data)]
            data = data[offsets[0] : offsets[1]].decode()
        message = json.loads(data)
    except (ValueError, struct.error, IndexError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("content"), dict) else None


def parent(message: Message) -> str | None:
    """The id of the request that `message` answers."""
    header = message.get("parent_header") or {}
    return header.get("msg_id") if isinstance(header, dict) else None


def kind(message: Message) -> str:
    """Its type."""
    return str(message.get("msg_type") or (message.get("header") or {}).get("msg_type") or "")
