"""The keys of ``[ingress]`` that matter without a gateway; a gateway plugin may own the same table for the others."""

from __future__ import annotations

from typing import Literal

from shoal.config.settings import Section


class IngressSettings(Section):
    """``[ingress]``.

    Attributes:
        mode: ``direct``: clients get the sandbox's own address; ``gateway``: they get that of a gateway plugin.
    """

    mode: Literal["direct", "gateway"] = "direct"
