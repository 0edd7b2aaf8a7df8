"""What every pod of this server shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

RUNTIME_DIR: Final = "/opt/opensandbox"
"""Where execd and what it needs is found, in the sandbox and in sidecars that share it."""


class PodDefaults(Struct, frozen=True):
    """From the configuration.

    Attributes:
        init_resources: of init containers; empty: those of the sandbox's own container, which cost a pod nothing.
        zero_limits: whether a sidecar of the operator's gets limits of zero where it has none.
        token_environment: from an agent's access token to the variables that its process gets; None for no tokens.
        gvisor: whether ``secure_runtime.type`` says so, whatever its class is called.
    """

    execd_image: str | None = None
    execd_as_init: bool = False
    pull_policy: str = "IfNotPresent"
    init_resources: dict[Literal["limits", "requests"], dict[str, str]] = {}
    zero_limits: bool = True
    runtime_class: str | None = None
    gvisor: bool = False
    token_environment: Callable[[str], dict[str, str]] | None = None
