"""What the servers of this folder's tests are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.support.servers import ServerProcess

Serve = Callable[..., ServerProcess]


class Parts(NamedTuple):
    """Images."""

    execd: str
    egress: str
