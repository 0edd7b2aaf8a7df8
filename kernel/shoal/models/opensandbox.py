"""What the OpenSandbox lifecycle API dictates by name, whichever runtime and plugins are in use (docs/wire).

Its wire speaks of engines and daemons by name where this server has runtimes and plugins. All such names stand here.
"""

from __future__ import annotations

from typing import Final

# --- Machine codes that clients match on, though their scope reads like a runtime's (api.md sections 3 to 10) ---------

POOL_NOT_SUPPORTED: Final = "KUBERNETES::POOL_NOT_SUPPORTED"
POOL_NOT_FOUND: Final = "KUBERNETES::POOL_NOT_FOUND"
POOL_ALREADY_EXISTS: Final = "KUBERNETES::POOL_ALREADY_EXISTS"
POOL_CAPACITY_EXHAUSTED: Final = "KUBERNETES::POOL_CAPACITY_EXHAUSTED"
POOL_API_ERROR: Final = "KUBERNETES::POOL_API_ERROR"
INVALID_ENTRYPOINT: Final = "DOCKER::INVALID_ENTRYPOINT"
INVALID_EXPIRATION: Final = "DOCKER::INVALID_EXPIRATION"
INVALID_PORT: Final = "DOCKER::INVALID_PORT"
ADDRESS_NOT_READY: Final = "KUBERNETES::POD_IP_NOT_AVAILABLE"
"""The one endpoint error that clients poll on (api.md section 21)."""

# --- Headers ---------------------------------------------------------------------------------------------------------

API_KEY_HEADER: Final = "OPEN-SANDBOX-API-KEY"
SECURE_ACCESS_HEADER: Final = "OpenSandbox-Secure-Access"
"""Carries the access token of a sandbox that was created with ``secureAccess`` (api.md section 8)."""
POLICY_TOKEN_HEADER: Final = "OPENSANDBOX-EGRESS-AUTH"  # noqa: S105 - a header's name
"""Carries the token by which network policies are changed (api.md section 14)."""
AGENT_TOKEN_HEADER: Final = "X-EXECD-ACCESS-TOKEN"  # noqa: S105 - a header's name
"""Carries the access token of a sandbox's agent (execd.md section 1)."""

# --- What a sandbox has in it (docker.md sections 2 to 4) ------------------------------------------------------------

AGENT_PORT: Final = 44772
"""Where the agent listens; clients ask for an endpoint of this port (execd.md section 1)."""
AGENT_FOLDER: Final = "/opt/opensandbox"
"""Where the agent and its bootstrap are, in every sandbox that has them."""
RESERVED_SIDECARS: Final = frozenset({"sandbox", "egress", "execd", "execd-installer"})
"""Names of the containers that the API itself puts into a sandbox (docker.md section 8, kubernetes.md section 8)."""

# --- Variables, keys and extensions of a create (api.md section 6) ---------------------------------------------------

RESERVED_PREFIX: Final = "opensandbox.io/"
"""Of metadata and labels that are the server's."""
ECHOED_EXTENSION_PREFIX: Final = "opensandbox.extensions."
RENEW_EXTENSION: Final = "access.renew.extend.seconds"
POOL_EXTENSION: Final = "poolRef"
LIFECYCLE_VARIABLE: Final = "OPENSANDBOX_LIFECYCLE"
EGRESS_PREFIX: Final = "OPENSANDBOX_EGRESS_"
EGRESS_VARIABLES: Final = frozenset(
    EGRESS_PREFIX + name
    for name in (
        "LOG_LEVEL",
        "DNS_UPSTREAM_TIMEOUT",
        "MITMPROXY_SSL_INSECURE",
        "MITMPROXY_TRANSPARENT",
        "MITMPROXY_EXTRA_PORTS",
        "DENY_WEBHOOK",
        "METRICS_EXTRA_ATTRS",
        "CREDENTIAL_VAULT_REQUIRE_TLS",
        "CREDENTIAL_VAULT_REQUIRE_SCOPED_MATCH",
        "CREDENTIAL_VAULT_TRUSTED_PROXY_CIDRS",
        "POLICY_FILE",
    )
)
"""What a caller may say through ``env`` to the sidecar that keeps network policies (docker.md section 8)."""
