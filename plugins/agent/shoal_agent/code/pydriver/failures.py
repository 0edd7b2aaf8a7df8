"""Exceptions as the agent reports them."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any, Dict, Optional

CELL = "<cell "
"""What the file name of code that was sent begins with."""


def describe(error: BaseException) -> Dict[str, Any]:
    """The map ``{ename, evalue, traceback}`` of `error`, without the driver's own frames."""
    kind = type(error)
    try:
        lines = "".join(traceback.format_exception(kind, error, trimmed(error.__traceback__))).splitlines()
    except Exception as broken:
        lines = [f"{kind.__name__} (its traceback raises {type(broken).__name__})"]
    return {"ename": kind.__name__, "evalue": message(error), "traceback": lines}


def message(error: BaseException) -> str:
    """The text of `error`, also where its `__str__` fails."""
    try:
        return str(error)
    except Exception:
        return f"<unprintable {type(error).__name__}>"


def trimmed(frames: Optional[TracebackType]) -> Optional[TracebackType]:
    """`frames` from the first one of the code on; None where there is none."""
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith(CELL):
        frames = frames.tb_next
    return frames
