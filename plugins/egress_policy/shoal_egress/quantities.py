"""Kubernetes resource names and quantities, as far as the sidecar's ``requests`` and ``limits`` need them read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shoal.kit import QuantityError, parse_quantity

_PLAIN: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def check_resources(requests: Mapping[str, str], limits: Mapping[str, str]) -> None:
    """Raise ValueError for a name that no container resource has, a malformed amount, or a request above its limit."""
    for table, amounts in (("requests", requests), ("limits", limits)):
        for name, amount in amounts.items():
            if not _is_resource(name):
                raise ValueError(f"{table}: {name[:64]!r} is not the name of a container resource")
            try:
                parse_quantity(amount)
            except QuantityError:
                raise ValueError(f"{table}.{name}: expected a quantity such as 100m or 128Mi") from None
    for name in requests.keys() & limits.keys():
        if parse_quantity(requests[name]) > parse_quantity(limits[name]):
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
        return parse_quantity(text) > 0
    except QuantityError:
        return False
