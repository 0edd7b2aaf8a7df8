"""Pools (docs/wire/api.md section 10)."""

from __future__ import annotations

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.errors import ValidationFailed
from shoal.models.pools import CreatePool, PoolList, UpdatePool
from shoal.web.parse import Body
from shoal.web.reader import problem
from shoal.web.resources import answer
from shoal.web.seam import Sandboxes

_create: Body[CreatePool] = Body(CreatePool)
_update: Body[UpdatePool] = Body(UpdatePool)


class PoolCollection:
    """``/pools``"""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._pools = sandboxes.pools
        self._limit = settings.server.max_body_bytes

    async def on_post(self, req: Request, resp: Response) -> None:
        """Make a pool; it fills behind the answer."""
        request = await _create.require(req, self._limit)
        if "\n" in request.name:  # the pattern lets one through at the end
            raise ValidationFailed([problem(("body", "name"), "string_pattern_mismatch", "must be a DNS label")])
        pool = await self._pools.create(request)
        resp.status = 201
        resp.set_header("Location", f"/v1/pools/{pool.name}")
        answer.json(resp, pool)

    async def on_get(self, _req: Request, resp: Response) -> None:
        """Every pool; there are no pages."""
        answer.json(resp, PoolList(items=await self._pools.all()))


class PoolItem:
    """``/pools/{name}``"""

    def __init__(self, sandboxes: Sandboxes, settings: Settings) -> None:
        self._pools = sandboxes.pools
        self._limit = settings.server.max_body_bytes

    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """The pool."""
        answer.json(resp, await self._pools.get(name))

    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Change its capacity; members come and go behind the answer."""
        request = await _update.require(req, self._limit)
        answer.json(resp, await self._pools.update(name, request.capacity_spec))

    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete it; idle members go behind the answer."""
        await self._pools.delete(name)
        resp.status = 204
