"""Reach: from a sandbox and a port to an address for the proxy, or an endpoint for a client; from the view alone."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from socket import socket
from typing import Any, Literal

import structlog
from msgspec.structs import replace

from shoal.errors import BadGateway, InternalError, InvalidRequest, NotFound
from shoal.lifecycle.agents import AgentStarts
from shoal.lifecycle.core import Core
from shoal.lifecycle.dialling import dial
from shoal.lifecycle.ledger import utcnow
from shoal.lifecycle.notifier import Notifier
from shoal.lifecycle.states import REACHABLE_SOON
from shoal.lifecycle.unreachable import NotRunning, unreachable
from shoal.models import codes
from shoal.models.sandbox import State
from shoal.models.workload import Tunnel, Workload
from shoal.plugin.calls import PluginBug, contained, wrong
from shoal.plugin.interfaces import (
    AGENT_PORT,
    AGENT_TOKEN_HEADER,
    AGENT_TOKEN_LABEL,
    SECURE_ACCESS_HEADER,
    Access,
    Endpoint,
    EndpointQuery,
    Ingress,
    PolicyTarget,
    Renewal,
)
from shoal.view.entry import Entry

log = structlog.get_logger("shoal.reach")


ADDRESSED = frozenset({State.RUNNING, State.PAUSING, State.PAUSED})
"""States in which an address means something."""
ENDED = frozenset({State.FAILED, State.TERMINATED, State.STOPPING})
"""States in which nobody has to be asked whether there is an address."""
DORMANT = frozenset({State.PAUSING, State.PAUSED})
"""States from which a renewal plugin may wake a sandbox that somebody wants to reach."""


class Reach:
    """Address and endpoint look-up."""

    def __init__(self, core: Core) -> None:
        settings, view, hosts, components = core.settings, core.view, core.hosts, core.components
        self._core = core
        self._wait = settings.lifecycle.endpoint_wait_seconds
        self._internal = settings.proxy.resolve_internal
        self._view = view
        self._hosts = hosts
        self._networking = components.networking
        self._ingresses = components.ingresses
        self._signing = [ingress for ingress in components.ingresses if ingress.signs]
        self._renewals = components.renewals
        self._components = components
        self._notifier = Notifier(components)
        self._agents = AgentStarts(view, hosts, settings.lifecycle.agent_wait_seconds)

    def _check_query(self, sandbox_id: str, port: int, *, use_server_proxy: bool, expires: int | None) -> None:
        """Raise InvalidRequest for a question that has no answer (docs/wire/api.md section 8)."""
        if use_server_proxy and expires is not None:
            raise InvalidRequest(codes.INVALID_PARAMETER, "use_server_proxy and expires exclude each other.")
        if expires is not None and not self._signing:
            entry = self._view.get(sandbox_id)
            able = self._hosts.capabilities(entry.record if entry else None).signed_endpoints
            code = codes.INVALID_PARAMETER if able else codes.API_NOT_SUPPORTED
            raise InvalidRequest(code, "Signed endpoints need an ingress that signs; none is configured.")
        check_port(port)

    def address(self, sandbox_id: str, port: int) -> str | Tunnel | None:
        """Where the proxy finds a running sandbox's port; None if that takes a wait, or is an error."""
        entry = self._view.get(sandbox_id)
        if entry is None or (port == AGENT_PORT and not self._agents.settled(entry)):
            return None
        return self._address(entry, port)

    def _address(self, entry: Entry, port: int) -> str | Tunnel | None:
        """None if it does not run or has no address yet."""
        if entry.record.state is not State.RUNNING or entry.workload is None or entry.record.hidden:
            return None
        return self._route(entry.workload, port)

    async def await_address(self, sandbox_id: str, port: int, *, wake: bool = True) -> str | Tunnel:
        """The same, waiting while the sandbox is on its way, and with ``wake`` while a renewal plugin resumes it.

        The agent's port is waited for until the agent answers, or has had its time.

        Raises NotFound, Conflict if it is not running, or Unavailable if its runtime cannot be asked.
        """
        entry = self._core.entry(sandbox_id)
        check_port(port)
        self._require_runtime(entry)
        wake = wake and bool(self._renewals)
        if not (wake and entry.record.state in DORMANT):  # a paused one may have no address before it is awake
            entry = await self.addressable(entry, port)
        if wake and entry.record.state in DORMANT:
            entry = await self.addressable(await self._woken(entry), port)
        address = self._now(entry, port)
        if port == AGENT_PORT:
            await self._agents.settle(entry, address)
            address = self._now(entry, port)
        return address

    async def start_agent(self, sandbox_id: str) -> None:
        """Return once the agent of a running sandbox answers, or has had its time from now.

        A hidden sandbox counts, too, and so does one that has run for long.
        """
        entry = self._view.get(sandbox_id)
        if entry is None or entry.workload is None or not self._agents.expected(entry):
            return
        address = self._route(entry.workload, AGENT_PORT)
        if address is not None:
            await self._agents.start(entry, address)

    def _now(self, entry: Entry, port: int) -> str | Tunnel:
        """The address at this moment. Raises Conflict."""
        now = self._view.get(entry.record.id) or entry
        address = self._address(now, port)
        if address is None:
            raise self._not_running(now)
        return address

    async def addressable(self, entry: Entry, port: int) -> Entry:
        """The entry once the port has an address.

        Waits ``lifecycle.endpoint_wait_seconds`` for a sandbox on its way; at the bound, NotFound with the one code on
        which clients poll (docs/wire/api.md section 21). Raises Conflict for one that has ended.
        """

        def done(now: Entry) -> bool:
            # An address may be known a moment before the state that goes with it is durable.
            state = now.record.state
            return state not in REACHABLE_SOON and (state is not State.RUNNING or self._known(now, port))

        if not done(entry):
            later = await self._view.until(entry.record.id, done, self._wait)
            if later is None:
                raise self._deleted(entry)
            entry = later
        if self._known(entry, port) and entry.record.state in ADDRESSED:
            return entry
        if entry.record.state in (*REACHABLE_SOON, State.RUNNING):
            raise NotFound(codes.ADDRESS_NOT_READY, "The sandbox has no address yet; ask again.")
        raise self._not_running(entry)

    async def endpoint(
        self, sandbox_id: str, port: int, *, use_server_proxy: bool, expires: int | None, base: str
    ) -> Endpoint:
        """The endpoint of the first ingress that has an answer; waits for what its answer takes, bounded.

        Raises NotFound (also where its runtime is not enabled), InvalidRequest, Unavailable while its runtime does not
        answer, and for a sandbox whose create failed what a create that waits would raise.
        """
        self._check_query(sandbox_id, port, use_server_proxy=use_server_proxy, expires=expires)
        entry = self._core.entry(sandbox_id)
        if entry.doubt is not None and not self._hosts.enabled(entry.record) and entry.record.state not in ENDED:
            raise NotFound(codes.RUNTIME_NOT_ENABLED, entry.doubt.message)  # clients would repeat a 503
        self._require_runtime(entry)
        try:
            return await self._endpoint(entry, port, use_server_proxy=use_server_proxy, expires=expires, base=base)
        except NotRunning as ended:
            raise unreachable(ended.record, self._hosts.scope(ended.record)) from None

    async def _endpoint(
        self, entry: Entry, port: int, *, use_server_proxy: bool, expires: int | None, base: str
    ) -> Endpoint:
        entry, workload = await self._seen(entry)
        query = EndpointQuery(
            record=entry.record,
            workload=workload,
            port=port,
            base=base,
            internal_address=_address_of(self._route(workload, port)),
            use_server_proxy=use_server_proxy,
            expires=expires,
        )
        for ingress in self._ingresses if expires is None else self._signing:
            with contained(self._components.part("ingress", ingress)):
                needs_address = ingress.needs_address(query)
            if needs_address:
                entry = await self.addressable(entry, port)
                workload = entry.workload or workload
                address = _address_of(self._route(workload, port))
                query = replace(query, record=entry.record, workload=workload, internal_address=address)
            endpoint = self._told(ingress, query)
            if endpoint is not None:
                way = self._route(workload, port)
                if port == AGENT_PORT and way is not None:
                    await self._met(entry, way, by_proxy=use_server_proxy)
                return self._with_headers(endpoint, query)
        raise InternalError(codes.INTERNAL_ERROR, "No enabled ingress plugin answers for this sandbox.")

    async def _met(self, entry: Entry, way: str | Tunnel, *, by_proxy: bool) -> None:
        """Return once the agent can be reached: at once for a client whose requests the proxy will hold until then."""
        if by_proxy:
            self._agents.begin(entry, way)
        else:
            await self._agents.settle(entry, way)

    def _told(self, ingress: Ingress, query: EndpointQuery) -> Endpoint | None:
        """What an ingress answers. Raises what it raises, and PluginBug for what is no endpoint."""
        part = self._components.part("ingress", ingress)
        with contained(part):
            endpoint: Any = ingress.endpoint(query)
        if endpoint is None:
            return None
        if not isinstance(endpoint, Endpoint):
            raise wrong(part, f"returned {type(endpoint).__name__} from endpoint, and not an Endpoint or None")
        where: Any = endpoint.endpoint
        if not isinstance(where, str) or not where or "://" in where:
            raise wrong(part, "gave an endpoint that is not host[:port][/path], without a scheme")
        headers: Any = {} if endpoint.headers is None else endpoint.headers
        if not isinstance(headers, dict) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
            raise wrong(part, "gave an endpoint whose headers are not a dict of texts")
        return endpoint

    def _with_headers(self, endpoint: Endpoint, query: EndpointQuery) -> Endpoint:
        """What the port wants requests to carry, added to what the ingress said."""
        workload = query.workload
        tokens = [*self._tokens(workload), *_agent_token(workload, query.port, endpoint.endpoint)]
        headers = {**(endpoint.headers or {}), **workload.headers, **dict(tokens)}
        for concern in self._networking:
            headers |= concern.headers(workload, query.port)
        if query.expires is not None:  # the signature stands for the token
            headers = {name: value for name, value in headers.items() if name.lower() != SECURE_ACCESS_HEADER.lower()}
        return replace(endpoint, headers=headers or None)

    def _tokens(self, workload: Workload) -> list[tuple[str, str]]:
        """The header in which callers must present an access token; none for a workload that is open."""
        for concern in self._networking:
            token = concern.access_token(workload)
            if token:
                return [(SECURE_ACCESS_HEADER, token)]
        return []

    def upstream_headers(self, sandbox_id: str, port: int) -> list[tuple[bytes, bytes]]:
        """What the port wants requests to carry, as the proxy sends it, and what callers must present."""
        entry = self._view.get(sandbox_id)
        if entry is None or entry.workload is None:
            return []
        workload = entry.workload
        headers = [*workload.headers.items(), *self._tokens(workload)]
        headers += _agent_token(workload, port, workload.address(port))
        return [(name.lower().encode(), value.encode()) for name, value in headers]

    def keeps_connections(self, sandbox_id: str, port: int) -> bool:
        """Whether the port is that of an agent that keeps connections, as the sandbox's own token shows."""
        entry = self._view.get(sandbox_id)
        if entry is None or entry.workload is None or not _agent_token(entry.workload, port, None):
            return False
        agent = self._hosts.of(entry.record).runtime.agent
        return agent is not None and agent.keeps_connections

    async def connect(self, tunnel: Tunnel) -> socket:
        """A connected socket to a port. Raises OSError, Unavailable, or what the runtime raises."""
        entry = self._view.get(tunnel.sandbox_id)
        if entry is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the sandbox is gone")
        return await dial(self._hosts.of(entry.record).runtime, tunnel)

    async def policy(self, sandbox_id: str) -> PolicyTarget:
        """Where the sandbox's network policy is read and changed; waits for its workload, bounded.

        Raises NotFound, Conflict, or BadGateway where nothing keeps a policy.
        """
        entry = self._core.entry(sandbox_id)
        self._require_runtime(entry)
        _, workload = await self._seen(entry)
        for concern in self._networking:
            target = concern.policy(workload)
            if target is not None:
                return target
        raise BadGateway(codes.BACKEND_CONNECTION_FAILED, "Nothing keeps a network policy for this sandbox.")

    def accessed(self, sandbox_id: str, port: int, transport: Literal["http", "websocket"]) -> None:
        """Tell every renewal plugin of an access through the proxy."""
        if self._renewals:
            self.notify(Access(sandbox_id, port, transport, utcnow()))

    def notify(self, access: Access) -> None:
        """Tell every renewal plugin of an access."""
        self._each("accessed", lambda renewal: renewal.accessed(access))

    def finished(self, sandbox_id: str) -> None:
        """Tell every renewal plugin that an HTTP exchange is over."""
        if self._renewals:
            self._each("finished", lambda renewal: renewal.finished(sandbox_id))

    def _each(self, method: str, call: Callable[[Renewal], None]) -> None:
        for renewal in self._renewals:
            self._notifier(renewal, method, lambda each=renewal: call(each))  # type: ignore[misc]  # bound now

    async def _seen(self, entry: Entry) -> tuple[Entry, Workload]:
        """The entry and its workload, waiting while the engine has not made one yet.

        Raises NotFound, or Conflict for a sandbox that has ended.
        """

        def done(now: Entry) -> bool:
            return now.workload is not None or now.record.state not in (*REACHABLE_SOON, State.RUNNING)

        if not done(entry):
            later = await self._view.until(entry.record.id, done, self._wait)
            if later is None:
                raise self._deleted(entry)
            entry = later
        if entry.workload is not None and entry.record.state in (*REACHABLE_SOON, *ADDRESSED):
            return entry, entry.workload
        if not done(entry):
            raise NotFound(codes.ADDRESS_NOT_READY, "The sandbox has no address yet; ask again.")
        raise self._not_running(entry)

    async def _woken(self, entry: Entry) -> Entry:
        """The entry after the renewal plugins were asked to wake it; one that wants to sleep on is as it was."""
        try:
            async with asyncio.timeout(self._wait):
                for renewal in self._awake():
                    if await self._wakes(renewal, entry):
                        break
        except TimeoutError:
            raise NotFound(codes.ADDRESS_NOT_READY, "The sandbox is being resumed; ask again.") from None
        now = self._view.get(entry.record.id)
        if now is None:
            raise self._deleted(entry)
        return now

    def _awake(self) -> list[Renewal]:
        """The renewal plugins that have started."""
        return [renewal for renewal in self._renewals if id(renewal) not in self._components.down]

    async def _wakes(self, renewal: Renewal, entry: Entry) -> bool:
        """Whether a plugin has woken it; one that fails has not. Raises what resuming it raises."""
        try:
            with contained(self._components.part("renewal", renewal)):
                return await renewal.wake(entry.record)
        except PluginBug:
            return False

    def _require_runtime(self, entry: Entry) -> None:
        """Raises Unavailable at once where only a runtime that is not there knows the address."""
        if entry.doubt is not None and entry.record.state not in ENDED:
            self._hosts.of(entry.record)

    def _known(self, entry: Entry, port: int) -> bool:
        return entry.workload is not None and self._route(entry.workload, port) is not None

    def _route(self, workload: Workload, port: int) -> str | Tunnel | None:
        for concern in self._networking:
            address = concern.route(workload, port)
            if address is not None:
                return address
        return workload.way(port) if self._internal else workload.public_way(port)

    def _deleted(self, entry: Entry) -> NotFound:
        code = codes.scoped(self._hosts.scope(entry.record), "SANDBOX_NOT_FOUND")
        return NotFound(code, "The sandbox was deleted meanwhile.")

    def _not_running(self, entry: Entry) -> NotRunning:
        return NotRunning(entry.record, self._hosts.scope(entry.record))


def _agent_token(workload: Workload, port: int, address: str | None) -> list[tuple[str, str]]:
    """The header that the agent of the sandbox wants: on its own port, and for a port that only it leads to."""
    token = workload.labels.get(AGENT_TOKEN_LABEL)
    by_agent = port == AGENT_PORT or (address is not None and workload.leads_by_proxy(address, port))
    return [(AGENT_TOKEN_HEADER, token)] if token and by_agent else []


def _address_of(way: str | Tunnel | None) -> str | None:
    return way if isinstance(way, str) else None


def check_port(port: int) -> None:
    """Raise InvalidRequest unless ``port`` is 1..65535."""
    if not 1 <= port <= 65535:
        raise InvalidRequest(codes.INVALID_PORT, "port must be between 1 and 65535.")
