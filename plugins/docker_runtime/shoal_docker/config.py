"""``[docker]`` and ``[secure_runtime]``, as in files of opensandbox-server (docs/wire/docker.md sections 1 and 12).

``host``, ``image_pull_policy``, ``concurrency`` and ``pids_limit = 0`` are this server's own additions.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from shoal.config.settings import Positive, Section, Text

DEFAULT_TIMEOUT: Final = 180.0
DROPPED: Final = (
    "AUDIT_WRITE",
    "MKNOD",
    "NET_ADMIN",
    "NET_RAW",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_PTRACE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
)
"""What a sandbox loses unless the file says otherwise."""
FEWEST_PORTS: Final = 100
HighPort = Annotated[int, Meta(ge=1024, le=65535)]


class DockerSettings(Section):
    """``[docker]``: the engine, the network of sandboxes, and what they may not do."""

    host: Text | None = None
    """The engine, as in DOCKER_HOST (``unix:///run/podman/podman.sock``); unset = DOCKER_HOST, then Docker's socket."""
    network_mode: Text = "host"
    """``host``, ``bridge``, ``none``, ``container:NAME``, or the name of a network."""
    api_timeout: Positive | None = None
    """Longest wait for one call of the engine, in seconds; unset = 180."""
    host_ip: str | None = None
    """The address of published ports as clients see it, where this server itself runs in a container."""
    drop_capabilities: list[str] = field(default_factory=lambda: list(DROPPED))
    no_new_privileges: bool = True
    apparmor_profile: str | None = None
    seccomp_profile: str | None = None
    """The path of a profile, ``unconfined``, or the profile itself as JSON."""
    pids_limit: Annotated[int, Meta(ge=0)] = 4096
    """Processes and threads of one sandbox; 0 = no limit."""
    init: bool = True
    """The engine's own init is process 1 of a sandbox and reaps what others leave; not where execd is process 1."""
    port_range_min: HighPort = 40000
    port_range_max: HighPort = 60000
    publish_host: str = "0.0.0.0"  # noqa: S104 - opensandbox-server's default: clients reach sandboxes directly
    """The IPv4 address that ports are published on."""
    sandbox_env: dict[str, str] = {}
    sandbox_binds: list[str] = []
    """``src:dst[:mode]``, before the request's own."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    concurrency: Positive = 16
    """Creates, removals, pauses and resumes side by side, unless ``lifecycle.provision_concurrency`` says otherwise."""

    @property
    def timeout(self) -> float:
        """Seconds for one call of the engine."""
        return float(self.api_timeout or DEFAULT_TIMEOUT)

    @property
    def mode(self) -> str:
        """``network_mode`` with its keywords in lower case; the name of a network or container keeps its own."""
        return normal_mode(self.network_mode)

    def __post_init__(self) -> None:
        """Raise ValueError for what the types cannot say."""
        if self.port_range_max - self.port_range_min < FEWEST_PORTS:
            raise ValueError(f"port_range_max must exceed port_range_min by at least {FEWEST_PORTS}")
        self.publish_host = self.publish_host.strip() or "0.0.0.0"  # noqa: S104 - the same default
        try:
            ipaddress.IPv4Address(self.publish_host)
        except ValueError:
            raise ValueError("publish_host must be an IPv4 address") from None
        wrong = [name for name in self.drop_capabilities if name.upper().startswith("CAP_")]
        if wrong:
            raise ValueError(f"drop_capabilities: write {wrong[0][4:]}, without CAP_")

    def __repr__(self) -> str:
        return f"DockerSettings(host={self.host!r}, network_mode={self.network_mode!r})"  # sandbox_env may be secret


class SecureRuntimeSettings(Section):
    """``[secure_runtime]``: sandboxes in a guest kernel or a second kernel in user space."""

    type: Literal["", "gvisor", "kata"] = ""
    docker_runtime: str | None = None
    """The engine's name for it; unset = ``runsc`` for gvisor, ``kata-runtime`` for kata."""
    k8s_runtime_class: str | None = None
    """The same for Kubernetes; read here so that one file serves both."""

    @property
    def runtime(self) -> str | None:
        """The engine's name of the runtime of sandboxes; None leaves it to the engine."""
        if not self.type:
            return None
        return self.docker_runtime or {"gvisor": "runsc", "kata": "kata-runtime"}[self.type]

    def __post_init__(self) -> None:
        """Raise ValueError for a half of a setting."""
        named = self.docker_runtime or self.k8s_runtime_class
        if self.type and not named:
            raise ValueError("type needs docker_runtime (or k8s_runtime_class)")
        if named and not self.type:
            raise ValueError("docker_runtime and k8s_runtime_class need a type")


def normal_mode(mode: str) -> str:
    """A network mode with its keywords in lower case: Docker distinguishes networks by case."""
    mode = mode.strip()
    head, colon, name = mode.partition(":")
    if colon and head.lower() == "container":
        return f"container:{name}"
    return mode.lower() if mode.lower() in ("host", "bridge", "none", "default") else mode
