"""Windows sandboxes: a guest that an emulator in a Linux image runs (docs/wire/docker.md section 5).

Limits go to the emulator as environment variables instead of to a cgroup; the agent's files come in on a volume.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models.codes import INVALID_PARAMETER
from shoal.models.plan import WorkloadPlan
from shoal_docker import limits

DEVICES: Final = ("/dev/kvm", "/dev/net/tun")
PORTS: Final = ("3389/tcp", "3389/udp", "8006/tcp")
"""Remote desktop and the emulator's own page, besides the ports of every sandbox."""
OEM_DIRECTORY: Final = "/oem"
FILES: Final = ("/install.bat", "/execd.exe")
"""In the execd image; copied into `OEM_DIRECTORY`."""
_DISK_KEYS: Final = ("disk", "storage", "ephemeral-storage")
_MIN_MEBIBYTES: Final = {"memory": 4, "disk": 64}
_MIN_CPUS: Final = 2
_GIGA, _GIBI = 10**9, 2**30


def is_guest(plan: WorkloadPlan) -> bool:
    """Whether the plan asks for Windows."""
    return plan.platform is not None and plan.platform.os == "windows"


def oem_volume(sandbox_id: str) -> str:
    """The name of the volume that holds `FILES` for one sandbox."""
    return f"opensandbox-win-oem-{sandbox_id}"


def check(plan: WorkloadPlan, *, exists: Callable[[str], bool] | None = os.path.exists) -> None:
    """Raise InvalidRequest for a guest that is too small, or that this machine cannot emulate.

    ``exists`` looks for a device; None where the engine's devices are not this machine's.
    """
    sizes(plan.resource_limits)
    missing = [device for device in DEVICES if exists is not None and not exists(device)]
    if missing:
        message = f"platform.os: Windows needs {' and '.join(missing)} on the host, which is not there."
        raise InvalidRequest(INVALID_PARAMETER, message)


def sizes(asked: Mapping[str, str]) -> dict[str, str]:
    """``resourceLimits`` as the emulator's variables; a limit that was not asked for is left to the emulator.

    Raises InvalidRequest, naming the key.
    """
    found = {}
    if "cpu" in asked:
        cpus = Decimal(limits.nano_cpus(asked["cpu"])) / limits.NANO
        if cpus < _MIN_CPUS:
            raise _too_small("cpu", asked["cpu"], str(_MIN_CPUS))
        found["CPU_CORES"] = str(int(cpus.to_integral_value(ROUND_CEILING)))
    if "memory" in asked:
        found["RAM_SIZE"] = _gigabytes("memory", asked["memory"], _MIN_MEBIBYTES["memory"])
    disk = next((key for key in _DISK_KEYS if key in asked), None)
    if disk is not None:
        found["DISK_SIZE"] = _gigabytes(disk, asked[disk], _MIN_MEBIBYTES["disk"])
    return found


def variables(env: Mapping[str, str], asked: Mapping[str, str], ports: Iterable[str]) -> dict[str, str]:
    """The environment with the guest's sizes, and in ``USER_PORTS`` every port (``8080/tcp``) that it must let in."""
    numbers = [word for word in env.get("USER_PORTS", "").replace(" ", "").split(",") if word]
    numbers += [port.partition("/")[0] for port in ports]
    return {**env, **sizes(asked), "USER_PORTS": ",".join(dict.fromkeys(numbers))}


def devices() -> list[dict[str, Any]]:
    """The HostConfig's ``Devices``."""
    return [{"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in DEVICES]


def _gigabytes(key: str, text: str, least: int) -> str:
    """Whole gigabytes in the kind of unit that was written, binary or decimal, rounded up."""
    unit = _GIBI if text.strip().lower().endswith("i") else _GIGA
    size = limits.memory_bytes(text, key)
    if size < least * unit:
        raise _too_small(key, text, f"{least}G")
    return f"{-(-size // unit)}G"


def _too_small(key: str, text: str, least: str) -> InvalidRequest:
    return InvalidRequest(
        INVALID_PARAMETER, f"resourceLimits.{key}: Windows needs at least {least}, not {text[:40]!r}."
    )
