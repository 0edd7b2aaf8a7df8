"""What one command did, and how a test runs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Told(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str


Run = Callable[..., Told]
