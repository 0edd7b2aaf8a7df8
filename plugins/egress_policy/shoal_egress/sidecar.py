"""The egress sidecar as a plan has it, in no engine's words (section 8 of docs/wire/docker.md and kubernetes.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from shoal.models.opensandbox import EGRESS_PREFIX
from shoal.models.plan import Probe, SecretFile, Sidecar, WorkloadPlan
from shoal.models.requests import HostVolume, NetworkPolicy, Volume
from shoal_egress.config import EgressSettings, UpstreamProxySettings
from shoal_egress.rules import TRANSPARENT

NAME: Final = "egress"
PORT: Final = 18080
POLICY_PATH: Final = "/policy"
HEALTH_PATH: Final = "/healthz"
AUTH_HEADER: Final = "OPENSANDBOX-EGRESS-AUTH"
SIDECAR_LABEL: Final = "opensandbox.io/egress-sidecar-for"
CA_VOLUME: Final = "opensandbox-egress-upstream-extra-ca"
CA_PATH: Final = "/etc/ssl/certs/opensandbox-upstream-extra-ca.pem"
CA_SECRET_KEY: Final = "ca.crt"  # noqa: S105 - the name of an entry
POLICY_FILE: Final = "/tmp/opensandbox-egress-policy.json"  # noqa: S108 - of the sidecar's own container
"""Where the sidecar keeps rules that change at run time, and finds them again after a restart."""
NO_IPV6: Final = {f"net.ipv6.conf.{which}.disable_ipv6": "1" for which in ("all", "default", "lo")}


def egress_sidecar(plan: WorkloadPlan, settings: EgressSettings, token: str, passed: Mapping[str, str]) -> Sidecar:
    """The sidecar that keeps the plan's policy.

    Args:
        settings: with an image.
        token: what its API on `PORT` demands in `AUTH_HEADER`.
        passed: what the request itself says to it.
    """
    assert settings.image is not None  # noqa: S101 - `rules.check` saw to it
    volumes, secret_files = _ca_bundle(settings.upstream_proxy)
    return Sidecar(
        name=NAME,
        image=settings.image,
        env=_environment(plan, settings, token, passed),
        ports=[PORT],
        resource_limits=settings.limits or {},
        resource_requests=settings.requests or {},
        capabilities=["NET_ADMIN"],
        trusted=True,
        first=True,
        ready=Probe(
            port=PORT,
            path=HEALTH_PATH,
            headers={AUTH_HEADER: token},
            timeout_seconds=settings.readiness_timeout_seconds,
        ),
        sysctls=NO_IPV6 if settings.disable_ipv6 else {},
        volumes=volumes,
        secret_files=secret_files,
        shares_runtime_dir=True,
        labels={SIDECAR_LABEL: plan.id},
    )


def _environment(plan: WorkloadPlan, settings: EgressSettings, token: str, passed: Mapping[str, str]) -> dict[str, str]:
    """In the order of docs/wire/kubernetes.md section 8; what the server says wins over the request."""
    own = {EGRESS_PREFIX + "RULES": policy_text(plan.network.policy), EGRESS_PREFIX + "MODE": settings.mode}
    if settings.otlp_endpoint is not None:
        own["OTEL_EXPORTER_OTLP_ENDPOINT"] = settings.otlp_endpoint
    own |= _upstream(settings.upstream_proxy)
    own[EGRESS_PREFIX + "SANDBOX_ID"] = plan.id
    if plan.credential_proxy:
        own[TRANSPARENT] = "true"
    own[EGRESS_PREFIX + "TOKEN"] = token
    asked = {EGRESS_PREFIX + "POLICY_FILE": POLICY_FILE, **passed}
    return {**own, **{name: value for name, value in asked.items() if name not in own}}


def policy_text(policy: NetworkPolicy | None) -> str:
    """The policy as the sidecar reads it: nulls left out, an empty list of rules kept."""
    policy = policy or NetworkPolicy()
    content: dict[str, object] = {} if policy.default_action is None else {"defaultAction": policy.default_action}
    content["egress"] = policy.egress
    return msgspec.json.encode(content).decode()


def _upstream(proxy: UpstreamProxySettings | None) -> dict[str, str]:
    if proxy is None:
        return {}
    env = {EGRESS_PREFIX + "UPSTREAM_PROXY": proxy.url}
    if proxy.authorization is not None:
        env[EGRESS_PREFIX + "UPSTREAM_PROXY_AUTH"] = proxy.authorization.reveal()
    if proxy.has_ca:
        env[EGRESS_PREFIX + "MITMPROXY_UPSTREAM_EXTRA_CA"] = CA_PATH
    return env


def _ca_bundle(proxy: UpstreamProxySettings | None) -> tuple[list[Volume], list[SecretFile]]:
    """The CA bundle as the engine at hand can have it: a file of its machine, or a secret of its own."""
    if proxy is None:
        return [], []
    volumes, secret_files = [], []
    if proxy.ca_cert_path is not None:
        host = HostVolume(path=proxy.ca_cert_path)
        volumes.append(Volume(name=CA_VOLUME, mount_path=CA_PATH, read_only=True, host=host))
    if proxy.ca_secret_name is not None:
        secret_files.append(SecretFile(secret=proxy.ca_secret_name, key=CA_SECRET_KEY, path=CA_PATH))
    return volumes, secret_files
