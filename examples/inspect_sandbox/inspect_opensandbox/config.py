"""What a task says of its sandboxes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class OpenSandboxConfig(BaseModel):
    """The configuration of one task's sandboxes.

    The server's address and key come from ``OPEN_SANDBOX_DOMAIN`` and ``OPEN_SANDBOX_API_KEY``, as for any client.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str = "python:3.12"
    """The image, by a name that the server knows."""
    working_dir: str = "/tmp/work"  # noqa: S108  # every image has a /tmp
    """Where commands start and relative paths begin; made if it is missing."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of every command."""
    resources: dict[str, str] = Field(default_factory=lambda: {"cpu": "1", "memory": "2Gi"})
    """Limits, as quantities of Kubernetes."""
    lifetime: float = Field(default=6 * 3600, gt=0)
    """Seconds after which the server ends a sandbox that nobody has ended."""
    ready_timeout: float = Field(default=300, gt=0)
    """Seconds that a sandbox may take to start, the pull of its image included."""
    use_server_proxy: bool = True
    """Reach the sandbox through the server. False: at its own address, where there is one."""
