"""Whatever a renewal, an ingress or an authenticator raises in flight, the server and the sandbox go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from structlog.testing import capture_logs

from shoal.models.sandbox import SandboxRecord
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import (
    Access,
    Authenticator,
    AuthRequest,
    Endpoint,
    EndpointQuery,
    Ingress,
    Principal,
    Renewal,
)
from shoal.testing import server_with

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


class Odd(BaseException):
    """Of no family at all."""


ERRORS = [ValueError("no coral"), asyncio.CancelledError(), SystemExit(3), Odd(), GeneratorExit()]
each_error = pytest.mark.parametrize("error", ERRORS, ids=[type(error).__name__ for error in ERRORS])


class Loud(Renewal):
    name = "loud"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def accessed(self, access: Access) -> None:
        raise self._error

    def finished(self, sandbox_id: str) -> None:
        raise self._error

    async def wake(self, record: SandboxRecord) -> bool:
        raise self._error

    @hookimpl
    def shoal_register_renewals(self) -> list[Renewal]:
        return [self]


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """A service of a sandbox: it answers whatever comes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as service:
        yield service.sockets[0].getsockname()[1]


@each_error
async def test_a_renewal_changes_nothing(error: BaseException, port: int) -> None:
    with capture_logs() as logs:
        async with server_with(reef=Loud(error)) as server, httpx.AsyncClient(base_url=server.url + "/v1") as client:
            made = (await client.post("/sandboxes", json=BODY)).json()["id"]
            await client.get(f"/sandboxes/{made}?wait=Running")
            assert (await client.get(f"/sandboxes/{made}/proxy/{port}/")).text == "ok"
            await client.post(f"/sandboxes/{made}/pause")
            refused = await client.get(f"/sandboxes/{made}/proxy/{port}/")
            assert refused.status_code == (500 if isinstance(error, GeneratorExit) else 409)
            assert (await client.get(f"/sandboxes/{made}")).json()["status"]["state"] == "Paused"
    named = {(entry["plugin"], entry.get("method")) for entry in logs if entry.get("plugin")}
    assert {("reef", "accessed"), ("reef", "finished")} <= named


@each_error
async def test_an_authenticator_or_an_ingress_fails_its_request_alone(error: BaseException) -> None:
    class Wild(Authenticator, Ingress):
        name = "wild"
        priority = 1000

        def endpoint(self, query: EndpointQuery) -> Endpoint | None:
            raise error

        async def authenticate(self, request: AuthRequest) -> Principal | None:
            if request.header("x-wild"):
                raise error
            return Principal(name="tame")

        @hookimpl
        def shoal_register_authenticators(self) -> list[Authenticator]:
            return [self]

        @hookimpl
        def shoal_register_ingresses(self) -> list[Ingress]:
            return [self]

    async with server_with(reef=Wild()) as server, httpx.AsyncClient(base_url=server.url + "/v1") as client:
        failed = await client.get("/sandboxes", headers={"X-Wild": "yes"})
        assert (failed.status_code, failed.json()["code"]) == (500, "GENERAL::INTERNAL_ERROR")
        made = (await client.post("/sandboxes", json=BODY)).json()["id"]
        await client.get(f"/sandboxes/{made}?wait=Running")
        assert (await client.get(f"/sandboxes/{made}/endpoints/80")).status_code == 500
        assert (await client.get(f"/sandboxes/{made}")).json()["status"]["state"] == "Running"
