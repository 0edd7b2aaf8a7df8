"""Kubernetes quantities: ``500m``, ``1.5``, ``512Mi``, ``1G``, ``1e3``.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ (decimal and binary suffixes,
decimal exponents). Negative ones are left out: no resource of a sandbox has any.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(
    r"\+?(?P<number>\d{1,18}(\.\d{0,9})?|\.\d{1,9})((?P<exponent>[eE][+-]?\d{1,2})|(?P<suffix>[numkMGTPE]|[KMGTPE]i))?",
    re.ASCII,
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_SHOWN: Final = 40
_MAX_BYTES: Final = 2**63 - 1
_MAX_CORES: Final = 1_000_000
_MIN_CORES: Final = Decimal("0.001")


class QuantityError(ValueError):
    """A text is not a quantity, or one out of bounds. The message is for the caller who sent it."""


def parse_quantity(text: str) -> Decimal:
    """The value of a quantity in its base unit (cores, bytes). Raises QuantityError."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise QuantityError(f"{_shown(text)} is not a quantity such as 500m, 2, 512Mi or 1G")
    number = Decimal(match["number"] + (match["exponent"] or ""))
    suffix = match["suffix"] or ""
    return number * (1 << _BINARY[suffix]) if suffix in _BINARY else number.scaleb(_DECIMAL[suffix])


def parse_bytes(text: str, *, least: int = 1, what: str = "memory") -> int:
    """Bytes, rounded up to whole ones; white space around the quantity is ignored.

    Args:
        text: the quantity.
        least: the smallest amount that is of any use, in bytes.
        what: names the resource in the message: ``memory``, ``disk``.

    Raises QuantityError, also for less than ``least`` and for more than a signed 64-bit number holds. A message about
    an amount in thousandths (``512m``) suggests the unit that was meant (``512Mi``).
    """
    value = parse_quantity(text.strip()).to_integral_value(rounding="ROUND_CEILING")
    if value < least:
        bare = text.strip()
        hint = f"; m is a thousandth, {bare[:-1]}Mi is mebibytes" if bare.endswith("m") else ""
        raise QuantityError(f"{_shown(text)} is less {what} than the {_readable(least)} that a sandbox needs{hint}")
    if value > _MAX_BYTES:
        raise QuantityError(f"{_shown(text)} is more {what} than there can be")
    return int(value)


def parse_cores(text: str) -> float:
    """Cores, between a thousandth and a million; white space around is ignored. Raises QuantityError."""
    value = parse_quantity(text.strip())
    if not _MIN_CORES <= value <= _MAX_CORES:
        raise QuantityError(f"{_shown(text)} is not a number of CPUs between 1m and {_MAX_CORES}")
    return float(value)


def _readable(amount: int) -> str:
    return f"{amount >> 20}Mi" if amount >= 1 << 20 and amount % (1 << 20) == 0 else str(amount)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
