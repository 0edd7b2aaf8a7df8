"""Windows sandboxes: a guest that an emulator in a Linux pod runs (docs/wire/kubernetes.md section 5).

The sizes go to the emulator as variables, and with room for itself to the container.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal_k8s.pods import quantities
from shoal_k8s.pods.installer import OEM, OEM_DIR

CAPABILITIES: Final = ("NET_ADMIN", "NET_RAW")
_DEVICES: Final = {"opensandbox-win-kvm": "/dev/kvm", "opensandbox-win-tun": "/dev/net/tun"}
_STORAGE: Final = "opensandbox-win-storage"
_PORTS: Final = ("44772", "8080", "3389", "8006")
_IDLE: Final = ["tail", "-f", "/dev/null"]
"""The entrypoint that stands for "the image's own"."""
_DISK_KEYS: Final = ("disk", "storage", "ephemeral-storage")
_MIN_CPUS, _MIN_MEMORY, _MIN_DISK = 2, 4, 64
_ROOM: Final = 2
"""GiB for the emulator, above the guest's memory."""
_GIGA, _GIBI = 10**9, 2**30


def is_guest(plan: WorkloadPlan) -> bool:
    """Whether the plan asks for Windows."""
    return plan.platform is not None and plan.platform.os == "windows"


def command(plan: WorkloadPlan) -> list[str] | None:
    """None for the image's own."""
    return None if plan.command == _IDLE else plan.argv


def variables(plan: WorkloadPlan) -> dict[str, str]:
    """The environment. Raises InvalidRequest for a guest that is too small."""
    env = {name: value or "" for name, value in plan.env.items()}
    ports = [word for word in env.get("USER_PORTS", "").replace(" ", "").split(",") if word]
    merged = ",".join(dict.fromkeys([*ports, *_PORTS]))
    return {**env, **_sizes(plan.resource_limits), "USER_PORTS": merged, "OPENSANDBOX_ID": plan.id}


def resources(asked: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """CPU and memory, the latter with room for the emulator."""
    limits = {"cpu": asked["cpu"].strip()} if "cpu" in asked else {}
    memory = quantities.amount(asked.get("memory", ""))
    if memory is not None:
        limits["memory"] = f"{_whole(memory / _GIBI) + _ROOM}Gi"
    return {"limits": limits, "requests": dict(limits)} if limits else {}


def volumes() -> list[dict[str, Any]]:
    """The guest's disk, the agent's files, and the node's devices that the emulator needs."""
    devices = [{"name": name, "hostPath": {"path": path, "type": "CharDevice"}} for name, path in _DEVICES.items()]
    return [{"name": OEM, "emptyDir": {}}, *devices, {"name": _STORAGE, "emptyDir": {}}]


def mounts() -> list[dict[str, Any]]:
    """Those of the main container."""
    paths = {OEM: OEM_DIR, **_DEVICES, _STORAGE: "/storage"}
    return [{"name": name, "mountPath": path} for name, path in paths.items()]


def _sizes(asked: Mapping[str, str]) -> dict[str, str]:
    found = {}
    if "cpu" in asked:
        found["CPU_CORES"] = str(_at_least("cpu", asked["cpu"], 1, _MIN_CPUS))
    if "memory" in asked:
        found["RAM_SIZE"] = f"{_at_least('memory', asked['memory'], _unit(asked['memory']), _MIN_MEMORY)}G"
    disk = next((key for key in _DISK_KEYS if key in asked), None)
    if disk is not None:
        found["DISK_SIZE"] = f"{_at_least(disk, asked[disk], _unit(asked[disk]), _MIN_DISK)}G"
    return found


def _at_least(key: str, text: str, unit: int, least: int) -> int:
    amount = quantities.amount(text)
    if amount is None or amount < least * unit:
        message = f"resourceLimits.{key}: Windows needs at least {least}{'' if unit == 1 else 'G'}, not {text[:40]!r}."
        raise InvalidRequest(codes.INVALID_PARAMETER, message)
    return _whole(amount / unit)


def _unit(text: str) -> int:
    """Gigabytes of the kind that was written."""
    return _GIBI if text.strip().endswith("i") else _GIGA


def _whole(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_CEILING))
