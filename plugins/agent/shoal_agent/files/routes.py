"""The routes of files and directories: `docs/wire/execd.md` section 8."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from shoal_agent.accounts import Accounts
from shoal_agent.files import move, permissions, replace, tree
from shoal_agent.files.download import download, whole_number
from shoal_agent.files.failures import reported
from shoal_agent.files.info import Describer, FileInfo
from shoal_agent.files.rows import array
from shoal_agent.files.threads import Threads
from shoal_agent.files.upload import Upload
from shoal_agent.http.errors import invalid_body
from shoal_agent.http.fields import Fields
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer, Response, json_response
from shoal_agent.http.routes import Routes
from shoal_agent.paths import Paths

BATCH = 2 * 1024 * 1024
"""Bytes of an upload that one call in a thread writes."""
T = TypeVar("T")


class Files:
    """The handlers, for one way to read paths."""

    def __init__(self, paths: Paths, accounts: Accounts, threads: Threads) -> None:
        self._paths = paths
        self._accounts = accounts
        self._threads = threads

    def add_to(self, routes: Routes) -> None:
        """Registers all of section 8."""
        routes.get("/files/info", self.info)
        routes.get("/files/search", self.search)
        routes.get("/files/download", self.download)
        routes.post("/files/upload", self.upload)
        routes.post("/files/permissions", self.permissions)
        routes.post("/files/mv", self.move)
        routes.post("/files/replace", self.replace)
        routes.delete("/files", self.delete)
        routes.get("/directories/list", self.listing)
        routes.post("/directories", self.make)
        routes.delete("/directories", self.delete_trees)

    async def info(self, request: Request) -> Answer:
        return await self._threads.run(self._infos, request.queries("path"))

    def _infos(self, paths: list[str]) -> Answer:
        describer = Describer(self._accounts)
        found: dict[str, FileInfo] = {}
        for sent in paths:
            path = self._paths.resolve(sent or ".")
            with reported(path):
                found[sent] = describer.describe(path, os.lstat(path))
        return json_response(found)

    async def search(self, request: Request) -> Answer:
        path = self._paths.resolve(request.required_query("path"))
        pattern = request.query("pattern") or ""
        return await array(lambda: tree.search(path, pattern, self._accounts), self._threads)

    async def download(self, request: Request) -> Answer:
        return await download(request, self._paths.resolve(request.required_query("path")), self._threads)

    async def upload(self, request: Request) -> None:
        upload = Upload(request.headers.get("content-type"), self._paths, self._accounts)
        try:
            batch: list[bytes] = []
            size = 0
            while piece := await request.body.read():
                batch.append(piece)
                size += len(piece)
                if size >= BATCH:
                    await self._threads.run(upload.feed, batch)
                    batch, size = [], 0
            await self._threads.run(upload.finish, batch)
        finally:
            upload.close()

    async def permissions(self, request: Request) -> None:
        changes = await self._per_path(request, lambda fields: permissions.parse(fields, self._accounts))
        await self._threads.run(permissions.change_all, changes)

    async def move(self, request: Request) -> None:
        items = await request.json()
        if not isinstance(items, list | None):
            raise invalid_body("the body must be a JSON array")
        pairs = [
            (fields.text("src"), fields.text("dest")) for fields in (Fields(item, "an item") for item in items or [])
        ]
        moves = [(self._paths.resolve(source), self._paths.resolve(target)) for source, target in pairs]
        await self._threads.run(move.move_all, moves)

    async def replace(self, request: Request) -> Answer:
        sent: dict[str, str] = {}

        def parsed(fields: Fields) -> replace.Replacement:
            return replace.parse(fields.text("old", ""), fields.text("new", ""))

        replacements = await self._per_path(request, parsed, sent)
        counts = await self._threads.run(replace.replace_all, replacements)
        if request.query("verbose") != "true":
            return Response()
        return json_response({sent[path]: {"replacedCount": count} for path, count in counts.items()})

    async def delete(self, request: Request) -> None:
        await self._each(request, tree.delete_files)

    async def delete_trees(self, request: Request) -> None:
        await self._each(request, tree.delete_trees)

    async def listing(self, request: Request) -> Answer:
        path = self._paths.resolve(request.required_query("path"))
        depth = whole_number("depth", request.query("depth") or "1", 0)
        return await array(lambda: tree.listing(path, depth, self._accounts), self._threads)

    async def make(self, request: Request) -> None:
        changes = await self._per_path(request, lambda fields: permissions.parse(fields, self._accounts))
        await self._threads.run(tree.make_all, changes)

    async def _each(self, request: Request, operation: Callable[[list[str]], None]) -> None:
        paths = [self._paths.resolve(path) for path in request.queries("path")]
        await self._threads.run(operation, paths)

    async def _per_path(
        self, request: Request, parse: Callable[[Fields], T], sent: dict[str, str] | None = None
    ) -> dict[str, T]:
        """A body that maps paths to objects; `sent` gets each path as it was written."""
        body = await request.json()
        if not isinstance(body, dict | None):
            raise invalid_body("the body must be a JSON object of paths")
        found = {}
        for path, value in (body or {}).items():
            resolved = self._paths.resolve(path)
            found[resolved] = parse(Fields(value, path))
            if sent is not None:
                sent[resolved] = path
        return found
