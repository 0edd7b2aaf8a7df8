"""The variables that commands, sessions and kernels see: `docs/wire/execd.md` sections 4 and 13."""

from __future__ import annotations

from collections.abc import Mapping

SECRET = frozenset({"EXECD_ACCESS_TOKEN"})
"""Never shown to anything that runs in the sandbox."""
OWN = SECRET | {
    "EXECD_ENVS",
    "EXECD_ISOLATION_CONFIG",
    "EXECD_LIFECYCLE_CONFIG",
    "EXECD_RUNTIME_INIT",
    "JUPYTER_HOST",
    "JUPYTER_TOKEN",
    "OPENSANDBOX_LIFECYCLE",
}
"""The agent's own; sessions, PTYs and hooks do not see them, commands see all but the secret."""


class Environment:
    """The agent's variables as they were at its start, and what is laid over them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.daemon = {name: value for name, value in environ.items() if name not in SECRET}
        """Without the secret; paths of requests expand from it."""
        self.bound: dict[str, str] = {}
        """Variables that late binding brought."""
