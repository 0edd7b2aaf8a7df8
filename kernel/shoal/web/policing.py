"""Asks the policies: whether a caller may do what it asks for, and what it may see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import structlog
from msgspec.structs import replace

from shoal.errors import NotFound, ShoalError
from shoal.models.sandbox import SandboxRecord
from shoal.plugin.calls import contained, wrong
from shoal.plugin.components import NO_PLUGINS, Part, part_of
from shoal.plugin.interfaces import PROXY_OPERATION, WEBSOCKET_OPERATION, Policy, PolicyRequest, Principal
from shoal.plugin.interfaces.policy import Governed
from shoal.plugin.interfaces.store import SnapshotRecord

if TYPE_CHECKING:
    from shoal.plugin.interfaces import Operation
    from shoal.proxy.asgi import Scope
    from shoal.proxy.target import ProxyTarget
    from shoal.web.exchange import Exchange
    from shoal.web.seam import LifecycleApi

log = structlog.get_logger("shoal.web")

POOL_ITEM: Final = "/pools/{name}"


class PolicyGuard:
    """Every policy of one server, of which there is one at least: where there is none, nothing is asked."""

    def __init__(
        self, policies: Sequence[Policy], lifecycle: LifecycleApi, plugins: Mapping[int, str] = NO_PLUGINS
    ) -> None:
        self._policies = [(policy, part_of("policy", policy, plugins)) for policy in policies]
        self._lifecycle = lifecycle

    async def routed(
        self, exchange: Exchange, scope: Scope, template: str, operation: Operation | None, params: Mapping[str, str]
    ) -> None:
        """Ask about a request to a route, or have its responder ask with the body. Raises what a policy raises."""
        request = PolicyRequest(
            operation=operation.name if operation else f"{exchange.method} {template.removeprefix('/v1')}",
            principal=exchange.principal,
            method=exchange.method,
            path=scope["path"],
            parameters=params,
            record=await self._named(template, params),
        )
        exchange.sees = lambda record: self.sees(exchange.principal, record)
        if operation is not None and operation.asks:
            self._require_visible(request)
            exchange.ask = lambda body: self._ask_once(exchange, replace(request, body=body))
        else:
            await self._ask(exchange, request)

    async def proxied(self, exchange: Exchange, scope: Scope, target: ProxyTarget) -> None:
        """Ask about a request for a sandbox's port. Raises what a policy raises."""
        host = target.host
        request = PolicyRequest(
            operation=WEBSOCKET_OPERATION if scope["type"] == "websocket" else PROXY_OPERATION,
            principal=exchange.principal,
            proof="credential" if host is None else "signed" if host.signed else "open" if host.open else "credential",
            method=exchange.method,
            path=scope["path"],
            parameters={"sandbox_id": target.sandbox_id, "port": str(target.port)},
            record=self._lifecycle.sandboxes.find(target.sandbox_id),
        )
        await self._ask(exchange, request)

    def sees(self, principal: Principal | None, record: Governed) -> bool:
        """Whether every policy shows it to this caller. Raises PluginBug for an answer that is neither."""
        for policy, part in self._policies:
            with contained(part):
                shown = policy.visible(principal, record)
            if shown is False:
                return False
            if shown is not True:
                raise wrong(part, f"returned {type(shown).__name__} from visible, and not True or False: refused")
        return True

    def finished(self, request: PolicyRequest) -> None:
        """The request is over. Never raises."""
        _finish(self._policies, request)

    async def _ask_once(self, exchange: Exchange, request: PolicyRequest) -> None:
        exchange.ask = None
        await self._ask(exchange, request)

    async def _ask(self, exchange: Exchange, request: PolicyRequest) -> None:
        self._require_visible(request)
        passed: list[tuple[Policy, Part]] = []
        try:
            for policy, part in self._policies:
                with contained(part):
                    answer: Any = await policy.check(request)  # type: ignore[func-returns-value]  # a plugin may be wrong
                passed.append((policy, part))
                if answer is not None:
                    raise wrong(part, f"returned {type(answer).__name__} from check, and not None: refused")
        except BaseException:
            _finish(passed, request)
            raise
        exchange.admitted = request

    def _require_visible(self, request: PolicyRequest) -> None:
        """Raise the NotFound of an unknown id for a record that the caller may not see."""
        record = request.record
        if record is None or request.proof != "credential" or self.sees(request.principal, record):
            return
        raise self.unknown(record)

    def unknown(self, record: Governed) -> NotFound:
        """What is answered for an id that does not exist."""
        if isinstance(record, SandboxRecord):
            return self._lifecycle.sandboxes.unknown(record.id)
        if isinstance(record, SnapshotRecord):
            return self._lifecycle.snapshots.unknown(record.id)
        return self._lifecycle.pools.unknown(record.name)

    async def _named(self, template: str, params: Mapping[str, str]) -> Governed | None:
        """What the path names, if there is such a thing."""
        try:
            if "sandbox_id" in params:
                return self._lifecycle.sandboxes.find(params["sandbox_id"])
            if "snapshot_id" in params:
                return self._lifecycle.snapshots.get(params["snapshot_id"])
            if template.removeprefix("/v1") == POOL_ITEM:
                return await self._lifecycle.pools.get(params["name"])
        except ShoalError:  # the responder says so too
            return None
        return None


def _finish(policies: Sequence[tuple[Policy, Part]], request: PolicyRequest) -> None:
    for policy, part in policies:
        try:
            policy.finished(request)
        except Exception:
            log.exception("policy failed", plugin=part.plugin, policy=policy.name, operation=request.operation)
