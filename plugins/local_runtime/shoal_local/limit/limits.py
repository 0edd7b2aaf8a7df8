"""Resource limits of one sandbox: what was asked for, and how far this machine enforces it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.kit import parse_bytes, parse_cores
from shoal.models.codes import INVALID_PARAMETER

T = TypeVar("T")

MIN_MEMORY: Final = 6 * 2**20
"""With less, a shell does not start."""
MIN_DISK: Final = 8 * 2**20
"""With less, no file system can be made."""


class Limits(Struct, frozen=True, omit_defaults=True):
    """``cpu`` in cores, ``memory`` and ``disk`` in bytes, ``pids`` in processes and threads; None or 0 = no limit."""

    cpu: float | None = None
    memory: int | None = None
    pids: int = 0
    disk: int | None = None


class Enforcement(Struct, frozen=True, omit_defaults=True):
    """By what each limit is enforced, in words for ``inspect``; None = it is not."""

    cpu: str | None = None
    memory: str | None = None
    pids: str | None = None
    disk: str | None = None


_DISK_KEYS: Final = ("ephemeral-storage", "disk")


def parse(limits: Mapping[str, str], pids: int, disk: str | None = None) -> Limits:
    """A request's ``resourceLimits``: cpu, memory, and disk or ephemeral-storage; other keys are ignored.

    ``disk`` is the limit where the request has none. Raises InvalidRequest.
    """
    asked = [key for key in _DISK_KEYS if key in limits]
    if len(asked) > 1:
        raise InvalidRequest(INVALID_PARAMETER, "resourceLimits: give either disk or ephemeral-storage")
    key, given = (asked[0], limits) if asked else ("disk", {} if disk is None else {"disk": disk})
    return Limits(
        cpu=_read(limits, "cpu", parse_cores),
        memory=_read(limits, "memory", _memory),
        pids=pids,
        disk=_read(given, key, _disk),
    )


def _memory(text: str) -> int:
    return parse_bytes(text, least=MIN_MEMORY)


def _disk(text: str) -> int:
    return parse_bytes(text, least=MIN_DISK, what="disk")


def _read(limits: Mapping[str, str], key: str, reader: Callable[[str], T]) -> T | None:
    if key not in limits:
        return None
    try:
        return reader(limits[key])
    except ValueError as error:
        raise InvalidRequest(INVALID_PARAMETER, f"resourceLimits.{key}: {error}") from None
