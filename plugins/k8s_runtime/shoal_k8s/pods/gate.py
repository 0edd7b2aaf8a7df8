"""A sandbox that is filtered, closed at both ends: nothing of its command runs before the filter, or after it.

A pod's containers start together, the sandbox's own first, as its controllers and other servers expect. So its command
waits in its own container until the sidecar's port is listened on, which the kernel shows to every container of a pod;
the sidecar opens it after its rules are in force. At the end a kubelet ends all containers at once: a hook holds the
sidecar back for as long as the sandbox may still live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from shoal.models.plan import Sidecar
from shoal_k8s.pods.defaults import RUNTIME_DIR

BOOTSTRAP: Final = f"{RUNTIME_DIR}/bootstrap.sh"
_SHELL: Final = ["/bin/sh", "-c"]
_LISTENS: Final = "0A"
"""The state of a listening socket in ``/proc/net/tcp``."""
FILTER_GRACE: Final = 2
"""Seconds that a pod with a filter has to end, for the sandbox to be dead before its filter; no kubelet gives less."""
HOLD: Final = {"exec": {"command": ["sleep", "86400"]}}
"""A kubelet runs it for the pod's grace period at most, and only then ends the container."""


def command(bootstrap: Sequence[str], sidecars: Sequence[Sidecar]) -> list[str]:
    """What the sandbox's container runs before its command: the bootstrap, behind the gate where a sidecar is first.

    Args:
        bootstrap: empty where no execd is brought; then nothing says that the image has a shell, and there is no gate.
    """
    ports = [sidecar.ready.port for sidecar in sidecars if sidecar.first and sidecar.ready is not None]
    if not ports or not bootstrap:
        return list(bootstrap)
    return [*_SHELL, _script(ports), *bootstrap]


def bare(held: list[str]) -> list[str]:
    """The sandbox's own command in that of its container."""
    if held[:2] == _SHELL and held[3:4] == [BOOTSTRAP]:
        return held[4:]
    return held[1:] if held[:1] == [BOOTSTRAP] else held


def hold(sidecar: Sidecar) -> dict[str, Any]:
    """The hook of a sidecar that must come first, and so go last."""
    return {"lifecycle": {"preStop": HOLD}} if sidecar.first else {}


def _script(ports: Sequence[int]) -> str:
    """Nothing but what any shell has, and ``sleep``."""
    wanted = " && ".join(f"up {port:04X}" for port in ports)
    return (
        "up() { for f in /proc/net/tcp /proc/net/tcp6; do [ -r $f ] && while read -r n l r s x; do "
        f'case "$l $s" in *":$1 {_LISTENS}") return 0;; esac; done <$f; done; return 1; }}\n'
        f"until {wanted}; do sleep 0.05 2>/dev/null || sleep 1; done\n"
        'exec "$0" "$@"'
    )
