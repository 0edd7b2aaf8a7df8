"""What configurations of `opensandbox-server` may say that nothing here reads: retired keys, and sections set aside.

A retired key, or a section that changes nothing, costs a warning. A section that guards access is refused: ignoring it
would open what it closes. So is one that has a new name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KERNEL_KEYS: Final[Mapping[str, Mapping[str, str]]] = {
    "server": {"log_level": "log.level has taken its place"},
    "runtime": {"egress_image": "egress.image has taken its place"},
}
"""Table → key → why it is retired, of the kernel's own tables."""

IGNORED_SECTIONS: Final[Mapping[str, str]] = {
    "otel": "metrics and traces are not exported",
    "router": "[ingress.gateway] has taken its place",
}
"""Section that no plugin owns → what comes of it."""

RENAMED_SECTIONS: Final[Mapping[str, str]] = {"engine": "lifecycle"}
"""Section of an earlier version → the one that has taken its place; the server does not start with it."""

REFUSED_SECTIONS: Final[Mapping[str, str]] = {
    "tenants": (
        "not supported, and not ignored because it guards access: it says whose key reaches which sandboxes, and "
        "without it every key would reach them all. Give each tenant a server of its own, or take the section out"
    ),
}
"""Section that no plugin owns → why the server does not start with it."""
