"""Kubernetes quantities (``500m``, ``1.5``, ``512Mi``, ``1G``), as far as CPU and memory use them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ (decimal and binary suffixes,
decimal exponents).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_FORM: Final = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)(?P<suffix>[numkMGTPE]|[KMGTPE]i|[eE][+-]?\d{1,2})?")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LONGEST: Final = 32
LEAST_MEMORY: Final = 6 * 2**20
"""As Docker has it; with less, a shell does not start."""
LEAST_DISK: Final = 8 * 2**20


def parse(text: str) -> Decimal:
    """The value of a quantity in its base unit (cores, bytes). Raises ValueError."""
    match = _FORM.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{text[:_LONGEST]!r} is not a quantity such as 500m, 2, 512Mi or 1G")
    number, suffix = Decimal(match["number"]), match["suffix"] or ""
    if suffix in _BINARY:
        return number * (1 << _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:])) if suffix else number


def memory_bytes(text: str) -> int:
    """Bytes, rounded up to whole ones. Raises ValueError, also for less than any program can start with."""
    return _bytes(text, LEAST_MEMORY, "memory")


def disk_bytes(text: str) -> int:
    """Bytes of a file system, rounded up to whole ones. Raises ValueError, also for too few to make one."""
    return _bytes(text, LEAST_DISK, "disk")


def _bytes(text: str, least: int, what: str) -> int:
    value = parse(text).to_integral_value(rounding="ROUND_CEILING")
    if value < least:
        hint = f"; m is a thousandth, {text.strip()[:-1]}Mi is mebibytes" if text.strip().endswith("m") else ""
        raise ValueError(f"{text!r} is less {what} than the {least // 2**20}Mi that a sandbox needs{hint}")
    if value >= 2**63:
        raise ValueError(f"{text!r} is more {what} than there can be")
    return int(value)


def cpu_cores(text: str) -> float:
    """Cores, as a positive number. Raises ValueError, also for less than a thousandth."""
    value = parse(text)
    if not Decimal("0.001") <= value <= 1_000_000:
        raise ValueError(f"{text!r} is not a number of CPUs between 1m and 1000000")
    return float(value)
