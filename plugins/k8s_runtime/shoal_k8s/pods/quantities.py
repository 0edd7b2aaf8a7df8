"""Amounts of resources: checked before anything is made, for a pod inside a custom resource is refused much later."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from shoal.errors import InvalidRequest
from shoal.kit import QuantityError, parse_bytes, parse_quantity
from shoal.models import codes

GPU: Final = "nvidia.com/gpu"
COUNTED: Final = ("cpu", "memory", "ephemeral-storage")
"""What every container of a pod must say once a quota counts it, init containers too."""
MIN_MEMORY: Final = 6 * 2**20
"""Container engines take no less; the kubelet would try for ever."""


def check(limits: Mapping[str, str], requests: Mapping[str, str]) -> None:
    """Raise InvalidRequest for an amount that Kubernetes cannot read, and for a request above its limit."""
    for field, given in (("resourceLimits", limits), ("resourceRequests", requests)):
        for key, text in given.items():
            if key == "gpu":
                _check_gpu(f"{field}.gpu", text)
            elif amount(text) is None:
                raise _refused(f"{field}.{key[:64]}", text, "is not an amount such as 500m, 2 or 512Mi")
    if "memory" in limits:
        _check_memory(limits["memory"])
    for key, text in requests.items():
        asked, most = amount(text), amount(limits.get(key, text))
        if asked is not None and most is not None and asked > most:
            raise _refused(f"resourceRequests.{key[:64]}", text, f"is more than its limit {limits[key][:40]!r}")


def amount(text: str) -> Decimal | None:
    """The amount in units (bytes, cores); None if it is none."""
    try:
        return parse_quantity(text.strip())
    except QuantityError:
        return None


def named(given: Mapping[str, str]) -> dict[str, str]:
    """As a container has them."""
    return {(GPU if key == "gpu" else key): text.strip() for key, text in given.items()}


def counted(amounts: Mapping[str, str]) -> dict[str, str]:
    """Those that a quota may ask of every container of a pod."""
    return {key: text for key, text in amounts.items() if key in COUNTED}


def _check_memory(text: str) -> None:
    try:
        parse_bytes(text, least=MIN_MEMORY)
    except QuantityError as error:
        raise InvalidRequest(codes.INVALID_PARAMETER, f"resourceLimits.memory: {error}.") from None


def _check_gpu(field: str, text: str) -> None:
    if text.strip().lower() == "all":
        raise InvalidRequest(codes.INVALID_PARAMETER, f"{field}: 'all' is not possible on Kubernetes; give a number.")
    if not (text.strip().isdecimal() and int(text) > 0):
        raise InvalidRequest(codes.INVALID_PARAMETER, f"{field}: expected a positive integer.")


def _refused(field: str, text: str, why: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, f"{field}: {text[:40]!r} {why}.")
