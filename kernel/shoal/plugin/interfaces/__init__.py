"""What plugins implement, one file per family; hooks hand instances of these to the kernel."""

from shoal.plugin.interfaces.agent import (
    AGENT_PORT,
    AGENT_TOKEN_HEADER,
    AGENT_TOKEN_LABEL,
    Agent,
    AgentFiles,
    ForkedAgent,
)
from shoal.plugin.interfaces.auth import Authenticator, AuthRequest, Principal
from shoal.plugin.interfaces.command import Command
from shoal.plugin.interfaces.component import Component
from shoal.plugin.interfaces.ingress import Endpoint, EndpointQuery, HostTarget, Ingress
from shoal.plugin.interfaces.networking import SECURE_ACCESS_HEADER, Networking, PolicyTarget
from shoal.plugin.interfaces.observer import Observer, Transition
from shoal.plugin.interfaces.policy import PROXY_OPERATION, WEBSOCKET_OPERATION, Policy, PolicyRequest
from shoal.plugin.interfaces.pools import POOL_LABEL, NativePools
from shoal.plugin.interfaces.renewal import WEBSOCKET_NEWS_SECONDS, Access, Renewal, Transport
from shoal.plugin.interfaces.resources import TEXT, Operation, Resources, Route, query_parameter
from shoal.plugin.interfaces.runtime import Capabilities, LogQuery, Progress, Runtime
from shoal.plugin.interfaces.snapshots import SnapshotCatalogue
from shoal.plugin.interfaces.store import IdempotencyKey, SnapshotRecord, Store
from shoal.plugin.interfaces.truth import REQUEST_LABEL, Held, SharedTruth

__all__ = [
    "AGENT_PORT",
    "AGENT_TOKEN_HEADER",
    "AGENT_TOKEN_LABEL",
    "POOL_LABEL",
    "PROXY_OPERATION",
    "REQUEST_LABEL",
    "SECURE_ACCESS_HEADER",
    "TEXT",
    "WEBSOCKET_NEWS_SECONDS",
    "WEBSOCKET_OPERATION",
    "Access",
    "Agent",
    "AgentFiles",
    "AuthRequest",
    "Authenticator",
    "Capabilities",
    "Command",
    "Component",
    "Endpoint",
    "EndpointQuery",
    "ForkedAgent",
    "Held",
    "HostTarget",
    "IdempotencyKey",
    "Ingress",
    "LogQuery",
    "NativePools",
    "Networking",
    "Observer",
    "Operation",
    "Policy",
    "PolicyRequest",
    "PolicyTarget",
    "Principal",
    "Progress",
    "Renewal",
    "Resources",
    "Route",
    "Runtime",
    "SharedTruth",
    "SnapshotCatalogue",
    "SnapshotRecord",
    "Store",
    "Transition",
    "Transport",
    "query_parameter",
]
