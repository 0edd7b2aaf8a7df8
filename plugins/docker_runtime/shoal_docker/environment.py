"""The environment and the command of a sandbox's container (docs/wire/docker.md section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes, entrypoint
from shoal.models.opensandbox import EGRESS_PREFIX
from shoal.models.plan import WorkloadPlan

ID_VARIABLE: Final = "OPENSANDBOX_ID"
INIT_VARIABLE: Final = "EXECD_INIT"
"""``1`` makes execd process 1 of the sandbox."""
TRANSPARENT: Final = EGRESS_PREFIX + "MITMPROXY_TRANSPARENT"
"""Makes the bootstrap wait for a certificate, five minutes if need be."""
BOOTSTRAP: Final = "/opt/opensandbox/bootstrap.sh"
EXECD: Final = "/opt/opensandbox/execd"
command: Final = entrypoint.words
"""The words of a command, as on every runtime."""


def check(plan: WorkloadPlan) -> None:
    """Raise InvalidRequest for variables that no process can have, and for a command that is none."""
    for name, value in plan.env.items():
        if not name or "=" in name or "\0" in name:
            raise InvalidRequest(codes.INVALID_PARAMETER, "env: a name must not be empty, nor hold '=' or a null byte.")
        if value is not None and "\0" in value:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"env: the value of {name[:64]!r} holds a null byte.")
    if any("\0" in word for word in plan.command):
        raise InvalidRequest(codes.INVALID_PARAMETER, "entrypoint: it holds a null byte.")
    command(plan.command)


def variables(plan: WorkloadPlan, base: Mapping[str, str], *, init: bool = False) -> dict[str, str]:
    """The sandbox's environment.

    Args:
        base: ``docker.sandbox_env``; the request's own wins, and its null takes a variable away.
        init: ``runtime.execd_run_as_init``.
    """
    merged = {**base, **plan.env}
    found = {name: value for name, value in merged.items() if value is not None and _belongs(name, plan)}
    if init:
        found[INIT_VARIABLE] = "1"
    found.pop(ID_VARIABLE, None)  # so that ours comes last
    found[ID_VARIABLE] = plan.id
    return found


def _belongs(name: str, plan: WorkloadPlan) -> bool:
    """Whether the sandbox itself may see it: what is said to the egress sidecar stays there.

    The word about a certificate goes to both, but only where a sidecar can deliver one: without, the bootstrap would
    wait for it in vain.
    """
    if not name.startswith(EGRESS_PREFIX):
        return True
    return name == TRANSPARENT and any(sidecar.shares_runtime_dir for sidecar in plan.sidecars)


def is_init(found: Mapping[str, str]) -> bool:
    """Whether execd is process 1 of the sandbox, as its bootstrap reads it."""
    return found.get(INIT_VARIABLE, "").strip().lower() in ("1", "true", "yes", "on")


def listed(found: Mapping[str, str]) -> list[str]:
    """``NAME=value``, as the engine takes them."""
    return [f"{name}={value}" for name, value in found.items()]


class Start(Enum):
    """Who starts the command of a sandbox."""

    PLAIN = auto()
    """The engine."""
    OWN = auto()
    """The image's own entrypoint, which gets it as its argument."""
    BOOTSTRAP = auto()
    """The agent's bootstrap, a shell script."""
    AGENT = auto()
    """The agent itself, where the image has no shell."""


def invocation(words: Sequence[str], start: Start) -> dict[str, Any]:
    """What of the container's Config says what to run; the image's own entrypoint is replaced, but for `Start.OWN`."""
    if start is Start.OWN:
        return {"Cmd": command(words)}
    if start is Start.BOOTSTRAP:
        return {"Entrypoint": [BOOTSTRAP], "Cmd": command(words)}
    if start is Start.AGENT:
        return {"Entrypoint": [EXECD, "--init", "--"], "Cmd": command(words)}
    return {"Entrypoint": command(words), "Cmd": []}
