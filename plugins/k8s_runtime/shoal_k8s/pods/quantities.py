"""Amounts of resources: checked before anything is made, for a pod inside a custom resource is refused much later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, DecimalException
from typing import Final

from shoal.errors import InvalidRequest
from shoal.models import codes

GPU: Final = "nvidia.com/gpu"
COUNTED: Final = ("cpu", "memory", "ephemeral-storage")
"""What every container of a pod must say once a quota counts it, init containers too."""
_FORM: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?")
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def check(limits: Mapping[str, str], requests: Mapping[str, str]) -> None:
    """Raise InvalidRequest for an amount that Kubernetes cannot read, and for a request above its limit."""
    for field, given in (("resourceLimits", limits), ("resourceRequests", requests)):
        for key, text in given.items():
            if key == "gpu":
                _check_gpu(f"{field}.gpu", text)
            elif amount(text) is None:
                raise _refused(f"{field}.{key[:64]}", text, "is not an amount such as 500m, 2 or 512Mi")
    for key, text in requests.items():
        asked, most = amount(text), amount(limits.get(key, text))
        if asked is not None and most is not None and asked > most:
            raise _refused(f"resourceRequests.{key[:64]}", text, f"is more than its limit {limits[key][:40]!r}")


def amount(text: str) -> Decimal | None:
    """The amount in units (bytes, cores); None if it is none."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    number, unit = match[1], match[2] or ""
    try:
        if unit.endswith("i"):
            return Decimal(number) * Decimal(1024) ** ("KMGTPE".index(unit[0]) + 1)
        if unit in _DECIMAL:
            return Decimal(number).scaleb(_DECIMAL[unit])
        return Decimal(number).scaleb(int(unit[1:]))
    except DecimalException:
        return None


def named(given: Mapping[str, str]) -> dict[str, str]:
    """As a container has them."""
    return {(GPU if key == "gpu" else key): text.strip() for key, text in given.items()}


def counted(amounts: Mapping[str, str]) -> dict[str, str]:
    """Those that a quota may ask of every container of a pod."""
    return {key: text for key, text in amounts.items() if key in COUNTED}


def _check_gpu(field: str, text: str) -> None:
    if text.strip().lower() == "all":
        raise InvalidRequest(codes.INVALID_PARAMETER, f"{field}: 'all' is not possible on Kubernetes; give a number.")
    if not (text.strip().isdecimal() and int(text) > 0):
        raise InvalidRequest(codes.INVALID_PARAMETER, f"{field}: expected a positive integer.")


def _refused(field: str, text: str, why: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, f"{field}: {text[:40]!r} {why}.")
