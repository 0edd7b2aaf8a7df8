"""The filter of system calls as a program of the kernel's classic BPF (seccomp(2), Documentation/networking/filter)."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable
from typing import Final

from shoal_local.confine import calls
from shoal_local.confine.calls import Call

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_…, from linux/audit.h."""
_X32: Final = 0x40000000
"""Numbers from here on are x32's: the same calls by other numbers."""
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data; of each argument the lower half counts, as for the kernel."""
_LOAD, _RETURN = 0x20, 0x06
_EQUAL, _GREATER, _AT_LEAST, _ANY_BIT = 0x15, 0x25, 0x35, 0x45
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def build(machine: str, *, nested: bool = False, refusal: int = errno.EPERM, absent: int = errno.ENOSYS) -> bytes:
    """The filter for an architecture, as an array of struct sock_filter. Raises KeyError for an unknown one.

    Args:
        nested: allow user namespaces and mounts.
        refusal: the errno of calls that are refused.
        absent: the errno of calls that the sandbox's kernel seems not to have.
    """
    place = ("x86_64", "aarch64").index(machine)
    refused = [call[place] for call in calls.KERNEL.values()]
    if not nested:
        refused += [call[place] for call in calls.NAMESPACES.values()]
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _ERRNO | absent),  # 32-bit programs: their calls have numbers of their own
        _step(_LOAD, _NUMBER),
        *([*_when(_AT_LEAST, _X32, absent)] if machine == "x86_64" else []),
        *_when(_GREATER, calls.NEWEST, absent),
    ]
    for number in refused:
        if number is not None:
            steps += _when(_EQUAL, number, refusal)
    steps += _one_of(calls.SOCKET, place, calls.FAMILIES, errno.EAFNOSUPPORT if refusal == errno.EPERM else refusal)
    steps += _one_of(calls.PERSONALITY, place, calls.PERSONALITIES, refusal)
    steps += _argument(calls.IOCTL, place, 1, [_when(_EQUAL, number, refusal) for number in calls.IOCTLS])
    if not nested:
        steps += _when(_EQUAL, _number(calls.CLONE3, place), absent)
        steps += _argument(calls.CLONE, place, 0, [_when(_ANY_BIT, calls.NEW_NAMESPACES, refusal)])
        flags = calls.NEW_NAMESPACES | calls.NEW_TIME
        steps += _argument(calls.UNSHARE, place, 0, [_when(_ANY_BIT, flags, refusal)])
    return b"".join([*steps, _step(_RETURN, _ALLOW)])


def _one_of(call: Call, place: int, allowed: Iterable[int], refusal: int) -> list[bytes]:
    """Refuse the call unless its first argument is one of these."""
    found = [[_step(_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW)] for value in allowed]
    return _argument(call, place, 0, [*found, [_step(_RETURN, _ERRNO | refusal)]])


def _argument(call: Call, place: int, index: int, tests: list[list[bytes]]) -> list[bytes]:
    """If it is this call, ``tests`` of an argument; it is allowed if none of them returns."""
    inside = [_step(_LOAD, _ARGUMENTS + 8 * index), *(step for test in tests for step in test)]
    inside.append(_step(_RETURN, _ALLOW))
    return [_step(_EQUAL, _number(call, place), 0, len(inside)), *inside]


def _when(test: int, value: int, error: int) -> list[bytes]:
    return [_step(test, value, 0, 1), _step(_RETURN, _ERRNO | error)]


def _number(call: Call, place: int) -> int:
    number = call[place]
    assert number is not None  # noqa: S101 - these exist on both
    return number


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One struct sock_filter."""
    return struct.pack("=HBBI", code, yes, no, value)
