"""What a container may not do: capabilities, security options, process limits and secure runtimes.

See docs/wire/docker.md sections 1, 5 and 12. A sandbox and what its caller adds to it are confined alike; a sidecar of
the operator's own is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shoal.errors import ConfigError
from shoal.models.plan import Sidecar, WorkloadPlan
from shoal_docker.config import DockerSettings, SecureRuntimeSettings

ISOLATION: Final = "bootstrap.execd.isolation"
"""The extension by which a caller's execd makes sandboxes inside the sandbox; ``enable`` and nothing else."""
ISOLATION_DIRECTORY: Final = "/var/lib/execd/isolation"
GUEST_CAPABILITIES: Final = ("NET_ADMIN", "NET_RAW")
"""What the emulator of a Windows guest needs to build the guest's network."""
_PROFILES: Final = frozenset({"unconfined", "builtin"})


class Security:
    """The fragments of a HostConfig that confine containers.

    Raises ConfigError for a seccomp profile that cannot be read or is none.
    """

    def __init__(self, settings: DockerSettings, secure_runtime: SecureRuntimeSettings) -> None:
        self._dropped = list(settings.drop_capabilities)
        self._pids = settings.pids_limit
        self._apparmor = settings.apparmor_profile
        self._seccomp = seccomp_profile(settings.seccomp_profile)
        self._no_new_privileges = settings.no_new_privileges
        self._runtime = secure_runtime.runtime

    def verify(self, info: Mapping[str, Any]) -> list[str]:
        """Compare with what the engine says of itself in ``GET /info``.

        Returns what will have no effect there, as warnings. Raises ConfigError where it has not got the secure runtime.
        """
        known = sorted(info.get("Runtimes") or {})
        if self._runtime is not None and self._runtime not in known:
            has = ", ".join(known)
            raise ConfigError(f"secure_runtime: the container engine has no runtime {self._runtime!r}; it has {has}")
        options = " ".join(str(option) for option in info.get("SecurityOptions") or [])
        wanted = {"apparmor": self._apparmor, "seccomp": self._seccomp}
        return [
            f"docker.{name}_profile has no effect: the container engine runs without {name}"
            for name, profile in wanted.items()
            if profile and name not in options
        ]

    def of_sandbox(self, plan: WorkloadPlan, *, guest: bool = False) -> dict[str, Any]:
        """For the sandbox's own container; ``guest``: it emulates a machine, which needs a network of its own.

        What the plan itself drops stays dropped, whatever a guest needs: it guards the network that it shares.
        """
        dropped = [name for name in self._dropped if not (guest and name in GUEST_CAPABILITIES)]
        dropped += [name for name in plan.drop_capabilities if name not in dropped]
        added = [name for name in GUEST_CAPABILITIES if guest and name not in plan.drop_capabilities]
        found = self._confined(dropped, added)
        return _isolating(found) if plan.extensions.get(ISOLATION) == "enable" else found

    def of_sidecar(self, sidecar: Sidecar) -> dict[str, Any]:
        """For a container beside it, before its own capabilities: nothing for a trusted one."""
        return {} if sidecar.trusted else self._confined(self._dropped, [])

    def _confined(self, dropped: list[str], added: list[str]) -> dict[str, Any]:
        """A secure runtime holds for every confined container: one beside it would be a way around it."""
        found: dict[str, Any] = {"SecurityOpt": self._options()}
        if dropped:
            found["CapDrop"] = list(dropped)
        if added:
            found["CapAdd"] = list(added)
        if self._pids:
            found["PidsLimit"] = self._pids
        if self._runtime is not None:
            found["Runtime"] = self._runtime
        return found

    def _options(self) -> list[str]:
        options = ["no-new-privileges=true"] if self._no_new_privileges else []
        options += [f"apparmor={self._apparmor}"] if self._apparmor else []
        options += [f"seccomp={self._seccomp}"] if self._seccomp else []
        return options


def _isolating(found: dict[str, Any]) -> dict[str, Any]:
    """Room to make namespaces and mounts inside; the engine adds capabilities after it has dropped the others."""
    kept = [option for option in found["SecurityOpt"] if not option.startswith(("apparmor=", "seccomp="))]
    return found | {
        "CapAdd": [*found.get("CapAdd", []), "SYS_ADMIN"],
        "SecurityOpt": [*kept, "apparmor=unconfined", "seccomp=unconfined"],
        "MaskedPaths": [],
        "ReadonlyPaths": [],
        "Tmpfs": {ISOLATION_DIRECTORY: ""},
    }


def seccomp_profile(text: str | None) -> str | None:
    """The profile as the engine wants it: a word that it knows, or JSON on one line.

    Args:
        text: such a word, JSON, or the path of a file that holds JSON; it is read here, because the engine may not see
            this machine's files.

    Returns:
        None for None and for a blank text. Raises ConfigError.
    """
    text = (text or "").strip()
    if not text or text in _PROFILES:
        return text or None
    inline = text.startswith("{")
    where = "docker.seccomp_profile" if inline else f"docker.seccomp_profile: {text}"
    try:
        profile = json.loads(text if inline else Path(text).expanduser().read_bytes())
    except OSError as error:
        raise ConfigError(f"{where} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON: {error}") from None
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise ConfigError(f"{where} is not a seccomp profile: it has no defaultAction")
    return json.dumps(profile, separators=(",", ":"))
