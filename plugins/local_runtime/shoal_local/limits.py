"""Resource limits of one sandbox: what was asked for, and how far this machine enforces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal_local import quantities

T = TypeVar("T")


class Limits(Struct, frozen=True, omit_defaults=True):
    """``cpu`` in cores, ``memory`` in bytes, ``pids`` in processes and threads; None or 0 = no limit."""

    cpu: float | None = None
    memory: int | None = None
    pids: int = 0


class Enforcement(Struct, frozen=True, omit_defaults=True):
    """By what each limit is enforced, in words for ``inspect``; None = it is not."""

    cpu: str | None = None
    memory: str | None = None
    pids: str | None = None


def parse(limits: Mapping[str, str], pids: int) -> Limits:
    """A request's ``resourceLimits``; keys other than cpu and memory are ignored. Raises InvalidRequest."""
    return Limits(
        cpu=_read(limits, "cpu", quantities.cpu_cores),
        memory=_read(limits, "memory", quantities.memory_bytes),
        pids=pids,
    )


def _read(limits: Mapping[str, str], key: str, reader: Callable[[str], T]) -> T | None:
    if key not in limits:
        return None
    try:
        return reader(limits[key])
    except ValueError as error:
        raise InvalidRequest(INVALID_PARAMETER, f"resourceLimits.{key}: {error}") from None
