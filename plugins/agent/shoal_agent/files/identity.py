"""Files as an account sees them: `/v1/filesystem/{uid}/{gid}/…`, each pair served by a worker process."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import warnings

from shoal_agent.accounts import MAX_ID, Accounts
from shoal_agent.children import Children
from shoal_agent.files import worker
from shoal_agent.files.failures import PERMISSION_DENIED
from shoal_agent.files.worker import Credentials
from shoal_agent.http.errors import RUNTIME_ERROR, ApiError, invalid_body
from shoal_agent.http.request import Request
from shoal_agent.http.response import Answer
from shoal_agent.http.token import HEADER
from shoal_agent.proxy.forward import Unreachable, forward
from shoal_agent.proxy.upstream import AppConnection, UpstreamPool

IDLE_SECONDS = 30.0
"""A worker without requests ends."""
MAX_WORKERS = 16
PREFIX = "/v1/filesystem/"
Key = tuple[int, int]


class _Worker:
    """A running worker, with its connections."""

    def __init__(self, control: socket.socket) -> None:
        self.idle: asyncio.TimerHandle | None = None
        self._control = control
        self.pool = UpstreamPool(self._connect)

    async def _connect(self) -> AppConnection:
        loop = asyncio.get_running_loop()
        return (await loop.connect_accepted_socket(AppConnection, worker.connect(self._control)))[1]

    def stop(self) -> None:
        """It ends once the requests that it serves have ended."""
        if self.idle is not None:
            self.idle.cancel()
        self.pool.close()
        self._control.close()


class Identities:
    """The workers by user and group."""

    def __init__(self, accounts: Accounts, children: Children) -> None:
        self._accounts = accounts
        self._children = children
        self._workers: dict[Key, _Worker] = {}
        self._starting: dict[Key, asyncio.Task[_Worker]] = {}

    async def handle(self, request: Request) -> Answer:
        """The worker's answer. Raises `ApiError`: 400 for numbers that are none, 403 where the agent may not."""
        key = _identity(request.params["uid"]), _identity(request.params["gid"])
        found = await self._worker(key)
        query = request.target.partition("?")
        token = HEADER.lower()
        fields = [(name, value) for name, value in request.headers.fields if name.lower() != token]
        try:
            answer = await forward(request, found.pool, f"/{request.params['rest']}{query[1]}{query[2]}", fields)
        except Unreachable as error:
            self._remove(key, found)
            raise ApiError(500, RUNTIME_ERROR, f"the worker of {key[0]}:{key[1]} failed: {error}") from error
        answer.headers = [
            (name, f"{PREFIX}{key[0]}/{key[1]}{value}" if name == "Location" else value)
            for name, value in answer.headers
        ]
        return answer

    async def close(self) -> None:
        """Stops all workers."""
        for key, found in list(self._workers.items()):
            self._remove(key, found)

    async def _worker(self, key: Key) -> _Worker:
        """The worker of `key`, which its next `IDLE_SECONDS` begin with this request."""
        found = self._workers.get(key)
        if found is None:
            task = self._starting.get(key)
            if task is None:
                task = self._starting[key] = asyncio.get_running_loop().create_task(self._start(key))
                task.add_done_callback(lambda _: self._starting.pop(key, None))
            found = await asyncio.shield(task)
        if found.idle is not None:
            found.idle.cancel()
        found.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._remove, key, found)
        return found

    async def _start(self, key: Key) -> _Worker:
        uid, gid = key
        user = self._accounts.user(uid)
        credentials = Credentials(uid, gid, tuple(self._accounts.groups(uid, gid)), user.home if user else None)
        own = (os.geteuid(), os.getegid())
        if key != own and own[0] != 0:
            raise ApiError(403, PERMISSION_DENIED, f"the agent runs as {own[0]}:{own[1]} and cannot act as {uid}:{gid}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: see `worker.start`
            pid, control = worker.start(credentials)
        ended = self._children.watch(pid)
        control.setblocking(False)
        answer = await asyncio.get_running_loop().sock_recv(control, 1024)
        if answer != worker.READY:
            control.close()
            raise _refused(answer, key)
        found = self._workers[key] = _Worker(control)
        ended.add_done_callback(lambda _: self._remove(key, found))
        while len(self._workers) > MAX_WORKERS:
            oldest = next(iter(self._workers))
            self._remove(oldest, self._workers[oldest])
        return found

    def _remove(self, key: Key, found: _Worker) -> None:
        if self._workers.get(key) is found:
            del self._workers[key]
        found.stop()


def _identity(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) <= MAX_ID):
        raise invalid_body(f"{text!r} is no user or group number from 0 to {MAX_ID}")
    return int(text)


def _refused(answer: bytes, key: Key) -> ApiError:
    """What the worker said before it ended."""
    number, _, message = answer.decode("utf-8", "replace").partition(" ")
    if number == str(errno.EPERM):
        return ApiError(403, PERMISSION_DENIED, f"the agent may not act as {key[0]}:{key[1]}: {message}")
    return ApiError(500, RUNTIME_ERROR, f"no worker starts as {key[0]}:{key[1]}: {message or 'it ended'}")
