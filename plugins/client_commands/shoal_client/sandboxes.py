"""Create, find, list, delete: the lifecycle API as the commands use it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from shoal_client.connection import ClientError, ServerClient, reaching

KEEP_ALIVE: Final = ["tail", "-f", "/dev/null"]
"""The command of a sandbox that only waits for others."""
_PAGE: Final = 100
_WAIT_SECONDS: Final = 20


class SandboxClient:
    """The sandboxes of one server."""

    def __init__(self, server: ServerClient) -> None:
        self._server = server

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create one and return it once it runs. Raises ClientError, also for one that failed; that one is deleted."""
        made: dict[str, Any] = self._server.json(
            "POST", "/v1/sandboxes", body, headers={"Idempotency-Key": str(uuid.uuid4())}
        )
        try:
            return self._running(made)
        except BaseException:
            self.delete(str(made["id"]), missing_ok=True)
            raise

    def get(self, sandbox_id: str) -> dict[str, Any]:
        """One of them. Raises ClientError."""
        found: dict[str, Any] = self._server.json("GET", _path(sandbox_id))
        return found

    def list(self, *, state: str | None = None, metadata: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """All of them, newest first, page by page."""
        query = {"pageSize": str(_PAGE)}
        if state:
            query["state"] = state
        if metadata:
            query["metadata"] = urlencode(metadata)
        page, more = 1, True
        while more:
            answer = self._server.json("GET", f"/v1/sandboxes?{urlencode({**query, 'page': str(page)})}")
            yield from answer["items"]
            more, page = bool(answer["pagination"]["hasNextPage"]), page + 1

    def find(self, prefix: str) -> str:
        """The id that begins with ``prefix``. Raises ClientError if there is none, or several."""
        try:
            return str(self.get(prefix)["id"])
        except ClientError as error:
            if error.status != 404:
                raise
        ids = [str(each["id"]) for each in self.list() if str(each["id"]).startswith(prefix)] if prefix else []
        if len(ids) == 1:
            return ids[0]
        some = f"; it begins {len(ids)} ids" if ids else ""
        raise ClientError(f"there is no sandbox {prefix!r}{some}", 404)

    def delete(self, sandbox_id: str, *, missing_ok: bool = False) -> None:
        """End one. Raises ClientError."""
        try:
            self._server.json("DELETE", _path(sandbox_id))
        except ClientError as error:
            if not (missing_ok and error.status == 404):
                raise

    def logs(self, sandbox_id: str, tail: int) -> str:
        """The last lines that its own command printed."""
        asked = self._server.open("GET", f"{_path(sandbox_id)}/diagnostics/logs?tail={tail}")
        with asked as answer, reaching(self._server):
            return answer.read().decode("utf-8", "replace")

    def _running(self, sandbox: dict[str, Any]) -> dict[str, Any]:
        sandbox_id = str(sandbox["id"])
        while sandbox["status"]["state"] == "Pending":
            wait = urlencode({"wait": "Running", "timeout": str(_WAIT_SECONDS)})
            sandbox = self._server.json("GET", f"{_path(sandbox_id)}?{wait}")
        status = sandbox["status"]
        if status["state"] != "Running":
            why = status.get("message") or status.get("reason") or "no reason is known"
            raise ClientError(f"the sandbox is {status['state']}: {why}")
        return sandbox


def _path(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{quote(sandbox_id, safe='')}"
