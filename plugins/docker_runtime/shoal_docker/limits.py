"""``resourceLimits`` in the engine's words (docs/wire/docker.md section 5).

The spellings are those that users of opensandbox-server have, not Kubernetes' own: ``100m`` of memory is 100 million
bytes, and a unit is written in any case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, DecimalException
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER

MIN_MEMORY: Final = 6 * 2**20
"""The engine takes no less."""
LARGEST: Final = 2**63 - 1
"""The engine keeps amounts as signed 64-bit numbers."""
NANO: Final = 10**9
_MEMORY: Final = re.compile(r"([0-9]{1,19})(?:([kmgt])(b|i)?|b)?", re.IGNORECASE)
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4}
_GPUS: Final = re.compile(r"\+?[0-9]{1,9}")
_SHOWN: Final = 40


def resources(limits: Mapping[str, str]) -> dict[str, Any]:
    """The part of a container's HostConfig that bounds its memory (bytes), CPU (nano-CPUs) and GPUs.

    Keys other than ``memory``, ``cpu`` and ``gpu`` are ignored. Raises InvalidRequest, naming the key.
    """
    found: dict[str, Any] = {}
    if "memory" in limits:
        found["Memory"] = memory_bytes(limits["memory"])
        if found["Memory"] < MIN_MEMORY:
            raise _refused("memory", limits["memory"], "is less than the 6Mi that the engine takes; 512Mi is usual")
    if "cpu" in limits:
        found["NanoCpus"] = nano_cpus(limits["cpu"])
    if "gpu" in limits:
        found["DeviceRequests"] = [
            {"Driver": "", "Count": gpus(limits["gpu"]), "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}}
        ]
    return found


def memory_bytes(text: str, key: str = "memory") -> int:
    """Bytes: whole digits, then nothing, ``b``, ``k…t`` or ``kb…tb`` (times 1000), or ``ki…ti`` (times 1024).

    ``key`` is what the error names.
    """
    match = _MEMORY.fullmatch(text.strip())
    value = 0
    if match is not None:
        power = _POWERS[match[2].lower()] if match[2] else 0
        value = int(match[1]) * (1024 if (match[3] or "").lower() == "i" else 1000) ** power
    if not 0 < value <= LARGEST:
        raise _refused(key, text, "is not a positive amount of bytes such as 512Mi, 2g or 104857600")
    return value


def nano_cpus(text: str) -> int:
    """Thousand-millionths of a CPU, cut to whole ones: decimal cores, or a decimal with ``m`` for thousandths."""
    number = text.strip()
    thousandths = number[-1:] in ("m", "M")
    try:
        cores = Decimal(number[:-1].strip() if thousandths else number)
        value = int(cores.scaleb(6 if thousandths else 9)) if cores.is_finite() and cores.adjusted() < 32 else 0
    except DecimalException:
        value = 0
    if not 0 < value <= LARGEST:
        raise _refused("cpu", text, "is not a positive number of CPUs such as 0.5, 2 or 500m")
    return value


def gpus(text: str) -> int:
    """How many, or -1 for ``all``."""
    word = text.strip().lower()
    count = -1 if word == "all" else int(word) if _GPUS.fullmatch(word) else 0
    if count == 0:
        raise _refused("gpu", text, "is neither a positive number of GPUs nor all")
    return count


def _refused(key: str, text: str, why: str) -> InvalidRequest:
    shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return InvalidRequest(INVALID_PARAMETER, f"resourceLimits.{key}: {shown!r} {why}.")
