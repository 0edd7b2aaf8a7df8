"""The network policy of a sandbox (docs/wire/api.md section 14): checked here, read and changed where it is kept."""

from __future__ import annotations

from typing import Any, NoReturn
from urllib.parse import quote

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.models.requests import NetworkPolicy, NetworkRule, NonEmpty
from shoal.proxy.target import ProxyTarget
from shoal.web.forward import Forward
from shoal.web.parse import Body, read_body
from shoal.web.seam import Sandboxes

NetworkRules = list[NetworkRule]
Targets = list[NonEmpty]

_policy: Body[NetworkPolicy] = Body(NetworkPolicy)
_rules: Body[NetworkRules] = Body(NetworkRules)
_targets: Body[Targets] = Body(Targets)


class NetworkPolicyItem:
    """``/sandboxes/{sandbox_id}/networkpolicy``"""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._sandboxes = sandboxes
        self._limit = settings.server.max_body_bytes

    async def on_get(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Read it."""
        await self._hand_on(req, sandbox_id, None)

    async def on_put(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Replace it."""
        await self._hand_on(req, sandbox_id, _policy)

    async def on_patch(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Replace the rules of some targets, and add what is new."""
        await self._hand_on(req, sandbox_id, _rules)

    async def on_delete(self, req: Request, _resp: Response, sandbox_id: str) -> None:
        """Remove the rules of some targets."""
        await self._hand_on(req, sandbox_id, _targets)

    async def _hand_on(self, req: Request, sandbox_id: str, kind: Body[Any] | None) -> NoReturn:
        """Check the body and send the request on as it came; whoever keeps the policy has the last word on both."""
        raw = await read_body(req, self._limit)
        if kind is not None:
            await kind.understood(req, raw)
        policy = await self._sandboxes.policy(sandbox_id)
        target = ProxyTarget(
            sandbox_id=sandbox_id,
            port=policy.port,
            mount=b"/v1" if req.path.startswith("/v1/") else b"",
            route=f"/sandboxes/{quote(sandbox_id, safe='')}/proxy/{policy.port}".encode(),
            path=policy.path.encode(),
        )
        headers = [(name.lower().encode(), value.encode()) for name, value in policy.headers.items()]
        raise Forward(target, headers, raw)
