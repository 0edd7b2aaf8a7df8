"""The section ``[ingress.preview]``."""

from __future__ import annotations

import re

from shoal.config.settings import Section, Text

_LABEL = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*(:[0-9]{{1,5}})?")
_MAX_DOMAIN_LENGTH = 253 - 64
"""Leaves room for one label of 63 characters and its dot."""


class PreviewSettings(Section):
    """``[ingress.preview]``.

    Attributes:
        domain: what the hosts end in, with the port that browsers use if it is not the scheme's own. DNS and, if need
            be, a TLS proxy must lead ``*.domain`` here.
        endpoints: clients get a preview host whenever they ask for an endpoint; otherwise only for a signed one.
        open: let anybody in who knows a sandbox's id, without key or signature.
        key_file: the key that signs links, the same for all replicas; unset: one that the server makes and keeps
            beside its store. ``~`` is expanded.
    """

    domain: Text
    endpoints: bool = False
    open: bool = False
    key_file: Text | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what cannot be a domain."""
        self.domain = self.domain.strip().lower()
        if _DOMAIN.fullmatch(self.domain) is None or len(self.domain) > _MAX_DOMAIN_LENGTH:
            raise ValueError("domain must be a domain name, without scheme or wildcard, with or without a port")
