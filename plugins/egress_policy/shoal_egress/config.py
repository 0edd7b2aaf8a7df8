"""``[egress]`` (docs/wire/api.md section 19): the sidecar that keeps network policies, and the proxy behind it."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Meta

from shoal.config.settings import Section, Text
from shoal.models.secret import Secret
from shoal.plugin.interfaces import Capabilities
from shoal_egress.quantities import check_resources

CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
SECRET_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
MAX_NAME_LENGTH: Final = 253
_HOST: Final = re.compile(r"[A-Za-z0-9._\x80-\U0010ffff-]+")

CA_KEYS: Final = {"path": "ca_cert_path", "secret": "ca_secret_name"}
"""`Capabilities.certificates` → which of the two names the CA bundle (docs/wire/api.md section 19, cross rules)."""


class UpstreamProxySettings(Section):
    """``[egress.upstream_proxy]``: an HTTP CONNECT proxy that the sidecar's own proxy goes through."""

    url: Text
    authorization: Secret | None = None
    """The value of Proxy-Authorization; blank counts as unset."""
    ca_cert_path: str | None = None
    """Where the engine's machine has a CA bundle for what lies behind the proxy."""
    ca_secret_name: str | None = None
    """The cluster's secret that holds it, as ``ca.crt``."""

    def __post_init__(self) -> None:
        """Raise ValueError for what the types cannot say, without any value."""
        self.url = self.url.strip()
        _check_url(self.url)
        if self.authorization is not None:
            if not self.authorization.reveal().strip():
                self.authorization = None
            elif re.search(r"[\r\n]", self.authorization.reveal()):
                raise ValueError("authorization must not hold a line break")
        if self.ca_cert_path is not None:
            self.ca_cert_path = self.ca_cert_path.strip()
            if not self.ca_cert_path.startswith("/") or re.search(r"[:\x00]", self.ca_cert_path):
                raise ValueError("ca_cert_path must be an absolute POSIX path without ':'")
        if self.ca_secret_name is not None:
            self.ca_secret_name = self.ca_secret_name.strip()
            if len(self.ca_secret_name) > MAX_NAME_LENGTH or SECRET_NAME.fullmatch(self.ca_secret_name) is None:
                raise ValueError("ca_secret_name must be a DNS subdomain")

    @property
    def has_ca(self) -> bool:
        """Whether the sidecar gets a CA bundle of its own."""
        return self.ca_cert_path is not None or self.ca_secret_name is not None


class EgressSettings(Section):
    """``[egress]``."""

    image: Text | None = None
    """The sidecar's image; unset refuses every ``networkPolicy``."""
    mode: Literal["dns", "dns+nft"] = "dns"
    disable_ipv6: bool = True
    readiness_timeout_seconds: Annotated[float, Meta(gt=0)] = 30.0
    """How long the sidecar may take to be ready, before the sandbox's own container starts."""
    otlp_endpoint: str | None = None
    """Where the sidecar sends metrics; empty counts as unset."""
    requests: dict[str, str] | None = None
    limits: dict[str, str] | None = None
    """Resources of the sidecar; unset leaves them to the engine."""
    upstream_proxy: UpstreamProxySettings | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for what the types cannot say, without any value."""
        self.otlp_endpoint = self.otlp_endpoint or None
        if self.otlp_endpoint is not None:
            split = _split(self.otlp_endpoint)
            if split is None or split.scheme not in ("http", "https") or not split.hostname:
                raise ValueError("otlp_endpoint must be an http or https URL with a host")
        check_resources(self.requests or {}, self.limits or {})
        if self.upstream_proxy is not None and self.mode != "dns+nft":
            raise ValueError('upstream_proxy needs mode = "dns+nft"')

    def check_runtime(self, runtime: str, able: Capabilities) -> str | None:
        """What is wrong with the settings for a runtime with those capabilities; None if nothing is."""
        if self.upstream_proxy is None or able.certificates is None:
            return None
        right = CA_KEYS[able.certificates]
        for key in CA_KEYS.values():
            if key != right and getattr(self.upstream_proxy, key) is not None:
                return f"egress.upstream_proxy.{key}: the {runtime} runtime takes {right} instead"
        return None


def _check_url(url: str) -> None:
    """Raise ValueError unless it is ``http(s)://host[:port]``."""
    form = "url must be http://host:port or https://host:port"
    split = None if CONTROL.search(url) else _split(url)
    if split is None or split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError(form)
    if "@" in split.netloc:
        raise ValueError("url must not hold credentials; use authorization")
    if split.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError(f"{form}, without path, query and fragment")
    if not split.netloc.startswith("[") and _HOST.fullmatch(split.hostname) is None:
        raise ValueError(f"{form}, with a valid host")
    try:
        port = split.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of url must lie between 1 and 65535")


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
