"""Kubernetes resource names and quantities, as far as the sidecar's ``requests`` and ``limits`` need them read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_QUANTITY: Final = re.compile(
    r"\+?(?P<number>\d+(\.\d*)?|\.\d+)((?P<exponent>[eE][+-]?\d{1,3})|(?P<suffix>[numkMGTPE]|[KMGTPE]i))?"
)
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_PLAIN: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def quantity(text: str) -> Decimal:
    """The number that a quantity (``100m``, ``1.5Gi``, ``1e3``) stands for. Raises ValueError; none is negative."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("not a quantity")
    suffix = match["suffix"] or ""
    number = Decimal(match["number"] + (match["exponent"] or ""))
    return number * 2 ** _BINARY[suffix] if suffix in _BINARY else number.scaleb(_DECIMAL[suffix])


def check_resources(requests: Mapping[str, str], limits: Mapping[str, str]) -> None:
    """Raise ValueError for a name that no container resource has, a malformed amount, or a request above its limit."""
    for table, amounts in (("requests", requests), ("limits", limits)):
        for name, amount in amounts.items():
            if not _is_resource(name):
                raise ValueError(f"{table}: {name[:64]!r} is not the name of a container resource")
            try:
                quantity(amount)
            except ValueError:
                raise ValueError(f"{table}.{name}: expected a quantity such as 100m or 128Mi") from None
    for name in requests.keys() & limits.keys():
        if quantity(requests[name]) > quantity(limits[name]):
            raise ValueError(f"requests.{name} is above limits.{name}")


def _is_resource(name: str) -> bool:
    """A plain one, huge pages of a size, or an extended one: ``example.com/gpu``."""
    if name in _PLAIN:
        return True
    size = name.removeprefix("hugepages-")
    if size != name:
        return _is_positive(size)
    domain, slash, last = name.partition("/")
    if not slash or len(domain) > 253 or domain.startswith("requests."):
        return False
    return _DOMAIN.fullmatch(domain) is not None and _NAME.fullmatch(last) is not None


def _is_positive(text: str) -> bool:
    try:
        return quantity(text) > 0
    except ValueError:
        return False
