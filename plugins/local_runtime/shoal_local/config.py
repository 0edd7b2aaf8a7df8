"""The ``[local]`` section: how sandboxes run on this machine."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from msgspec import Meta, field

from shoal.config.settings import NotNegative, Positive, Section

UnprivilegedId = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class LocalSettings(Section):
    """``[local]``: the embedded runtime. Sizes in bytes, times in seconds."""

    state_dir: str | None = None
    """Where sandboxes keep their files; None = ``local`` beside the store's file."""
    isolation: Literal["auto", "bubblewrap", "unshare", "none"] = "auto"
    """auto = bubblewrap where it works, else unshare where it works, else the server refuses to start."""
    overlay: Literal["auto", "off"] = "auto"
    """off = no overlay: roots are read-only but for the sandbox's own ``/tmp``, ``/root``, ``/home`` and such."""
    cgroups: Literal["auto", "off"] = "auto"
    """off = limits by rlimits and pause by signals, as where no cgroup is writable."""
    network: Literal["auto", "internet", "none", "host"] = "auto"
    """internet, none: a network of each sandbox's own; host: this machine's; auto: internet with pasta, else none."""
    network_allow: list[str] = []
    """Networks such as ``10.1.0.0/16`` that sandboxes may reach though they are not the internet."""
    spare_networks: Annotated[int, Meta(ge=0, le=16)] = 2
    """Ways to the internet kept ready while sandboxes are being made, some 20 MB each; 0 = none."""
    seccomp: Literal["auto", "off"] = "auto"
    """off = no filter of system calls."""
    nested_namespaces: bool = False
    """Let sandboxes make user namespaces, and mounts in them."""
    uid: UnprivilegedId = 64000
    """Who sandboxes are on the host when the server runs as root; unused otherwise."""
    gid: UnprivilegedId = 64000
    images: dict[str, str] = field(default_factory=dict)
    """Other names (may end in ``*``) → ``host``, ``dir:/…``, ``oci-layout:/…[:ref]``, ``docker-archive:/…[:ref]``."""
    image_roots: list[str] = []
    """Directories in which a request may name an image by path; empty = only names in ``images``, and ``host``."""
    image_max_bytes: Positive = 32 * 1024**3
    """Of one image, unpacked."""
    image_max_entries: Positive = 2_000_000
    """Files, directories and links of one image."""
    image_unpack_seconds: Positive = 1800
    """How long reading and unpacking one image may take."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment of every sandbox, below the request's."""
    hidden_paths: list[str] = field(default_factory=list)
    """Further files and directories of this machine that the ``host`` image must not show."""
    pids_limit: NotNegative = 4096
    """Processes and threads of one sandbox, enforced by cgroup; 0 = no limit."""
    disk_limit: str | None = None
    """How much each sandbox may write, such as ``10Gi``, where the request does not say; None = no limit."""
    disk_quota: Literal["auto", "loop", "tmpfs", "off"] = "auto"
    """By what that is kept: loop = an ext4 image for each sandbox (root only), tmpfs = memory; off = not at all."""
    stop_grace_seconds: Annotated[float, Meta(ge=0, le=60)] = 0.0
    """Time between SIGTERM and SIGKILL on delete; 0 = SIGKILL at once."""
    log_max_bytes: Positive = 10 * 1024 * 1024
    """How much of a sandbox's newest output is kept, at the least; the file is cut back when it reaches twice that."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 8
    """Sandboxes being made, removed, paused or resumed side by side."""

    def __post_init__(self) -> None:
        for number, text in enumerate(self.network_allow):
            try:
                IPv4Network(text)
            except ValueError:
                raise ValueError(f"network_allow[{number}] must be an IPv4 network such as 10.1.0.0/16") from None
