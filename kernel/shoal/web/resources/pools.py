"""Pools (docs/wire/api.md section 10)."""

from __future__ import annotations

from falcon.asgi import Request, Response

from shoal.config.settings import Settings
from shoal.errors import ValidationFailed
from shoal.http.answers import answer_json, ask_policies, is_visible
from shoal.http.parse import BodyDecoder
from shoal.http.reader import problem
from shoal.models.pools import CreatePool, Pool, PoolList, UpdatePool
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.web.seam import PoolsApi

_create: BodyDecoder[CreatePool] = BodyDecoder(CreatePool)
_update: BodyDecoder[UpdatePool] = BodyDecoder(UpdatePool)


class PoolRoutes(Resources):
    """Create, list, read, change, delete."""

    name = "pools"

    def __init__(self, pools: PoolsApi, settings: Settings) -> None:
        self._pools = pools
        self._settings = settings

    def routes(self) -> list[Route]:
        """Of the collection and of an item."""
        return [
            Route("/pools", PoolCollection(self._pools, self._settings)),
            Route("/pools/{name}", PoolItem(self._pools, self._settings), parameters={"name": "Name of the pool."}),
        ]


class PoolCollection:
    """``/pools``"""

    def __init__(self, pools: PoolsApi, settings: Settings) -> None:
        self._pools = pools
        self._limit = settings.server.max_body_bytes

    @Operation(
        name="createPool",
        summary="Create a pool: sandboxes of one template, started ahead.",
        status=201,
        answers=(Pool,),
        errors=(400, 404, 409, 413, 429, 501),
        body=CreatePool,
        asks=True,
        example={
            "name": "warm",
            "template": {"image": {"uri": "host"}, "entrypoint": ["sleep", "600"]},
            "capacitySpec": {"bufferMin": 0, "bufferMax": 0, "poolMin": 0, "poolMax": 2},
        },
        headers=("Location",),
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Make a pool; it fills behind the answer."""
        request = await _create.require(req, self._limit)
        if "\n" in request.name:  # the pattern lets one through at the end
            raise ValidationFailed([problem(("body", "name"), "string_pattern_mismatch", "must be a DNS label")])
        await ask_policies(req, request)
        pool = await self._pools.create(request)
        resp.status = 201
        resp.set_header("Location", f"/v1/pools/{pool.name}")
        answer_json(resp, pool)

    @Operation(name="listPools", summary="List pools, by name.", answers=(PoolList,), errors=(501,))
    async def on_get(self, req: Request, resp: Response) -> None:
        """Every pool; there are no pages."""
        pools = await self._pools.all()
        answer_json(resp, PoolList(items=[pool for pool in pools if is_visible(req, pool)]))


class PoolItem:
    """``/pools/{name}``"""

    def __init__(self, pools: PoolsApi, settings: Settings) -> None:
        self._pools = pools
        self._limit = settings.server.max_body_bytes

    @Operation(name="getPool", summary="Read a pool.", answers=(Pool,), errors=(404, 501))
    async def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """The pool."""
        answer_json(resp, await self._pools.get(name))

    @Operation(
        name="updatePool",
        summary="Change how many sandboxes a pool holds.",
        answers=(Pool,),
        errors=(400, 404, 409, 413, 429, 501),
        body=UpdatePool,
        asks=True,
    )
    async def on_put(self, req: Request, resp: Response, name: str) -> None:
        """Change its capacity; members come and go behind the answer."""
        request = await _update.require(req, self._limit)
        await ask_policies(req, request)
        answer_json(resp, await self._pools.update(name, request.capacity_spec))

    @Operation(
        name="deletePool",
        summary="Delete a pool and its idle sandboxes; those that were taken stay.",
        status=204,
        errors=(404, 409, 429, 501),
    )
    async def on_delete(self, _req: Request, resp: Response, name: str) -> None:
        """Delete it; idle members go behind the answer."""
        await self._pools.delete(name)
        resp.status = 204
