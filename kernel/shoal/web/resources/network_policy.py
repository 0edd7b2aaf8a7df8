"""The network policy of a sandbox (docs/wire/api.md section 14): checked here, read and changed where it is kept."""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import quote

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.http.parse import BodyDecoder, read_body
from shoal.models.requests import NetworkPolicy, NetworkRule, NonEmpty
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.proxy.target import ProxyTarget
from shoal.web.forward import Forward
from shoal.web.resources.sandboxes import ITEM
from shoal.web.seam import ReachApi

NetworkRules = list[NetworkRule]
Targets = list[NonEmpty]

_policy: BodyDecoder[NetworkPolicy] = BodyDecoder(NetworkPolicy)
_rules: BodyDecoder[NetworkRules] = BodyDecoder(NetworkRules)
_targets: BodyDecoder[Targets] = BodyDecoder(Targets)


_ERRORS = (400, 404, 409, 413, 502, 504)
JsonObject = dict[str, Any]
"""The answer's form is for whoever keeps the policy to say."""


class NetworkPolicyRoutes(Resources):
    """The network policy of a sandbox."""

    name = "network-policy"

    def __init__(self, reach: ReachApi, settings: Settings) -> None:
        self._item = NetworkPolicyItem(reach, settings)

    def routes(self) -> list[Route]:
        """The one."""
        return [Route(f"{ITEM}/networkpolicy", self._item)]


class NetworkPolicyItem:
    """``/sandboxes/{sandbox_id}/networkpolicy``"""

    def __init__(self, reach: ReachApi, settings: Settings) -> None:
        self._reach = reach
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="getSandboxNetworkPolicy",
        summary="Read the network policy of a sandbox, from its egress sidecar.",
        answers=(JsonObject,),
        errors=_ERRORS,
    )
    async def on_get(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Read it."""
        await self._hand_on(req, sandbox_id, None)

    @Operation(
        name="putSandboxNetworkPolicy",
        summary="Replace the network policy of a sandbox.",
        answers=(JsonObject,),
        errors=_ERRORS,
        body=NetworkPolicy,
    )
    async def on_put(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Replace it."""
        await self._hand_on(req, sandbox_id, _policy)

    @Operation(
        name="patchSandboxNetworkPolicy",
        summary="Replace the rules of these targets, and add new ones.",
        answers=(JsonObject,),
        errors=_ERRORS,
        body=NetworkRules,
    )
    async def on_patch(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Replace the rules of some targets, and add what is new."""
        await self._hand_on(req, sandbox_id, _rules)

    @Operation(
        name="deleteSandboxNetworkPolicy",
        summary="Remove the rules of these targets.",
        answers=(JsonObject,),
        errors=_ERRORS,
        body=Targets,
    )
    async def on_delete(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Remove the rules of some targets."""
        await self._hand_on(req, sandbox_id, _targets)

    async def _hand_on(self, req: Request, sandbox_id: str, kind: BodyDecoder[Any] | None) -> NoReturn:
        """Check the body and send the request on as it came; whoever keeps the policy has the last word on both."""
        raw = await read_body(req, self._limit)
        if kind is not None:
            await kind.understood(req, raw)
        policy = await self._reach.policy(sandbox_id)
        target = ProxyTarget(
            sandbox_id=sandbox_id,
            port=policy.port,
            mount=b"/v1" if req.path.startswith("/v1/") else b"",
            route=f"/sandboxes/{quote(sandbox_id, safe='')}/proxy/{policy.port}".encode(),
            path=policy.path.encode(),
        )
        headers = [(name.lower().encode(), value.encode()) for name, value in policy.headers.items()]
        raise Forward(target, headers, raw)
