"""Resources of a stranger, installed by entry point: routed, guarded and documented as the server's own are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest
from falcon.asgi import Request, Response
from tests.docs.pages import parts
from tests.kernel.web.fakes import WordAuthenticator
from tests.kernel.web.wired import Web
from tests.support.stranger import installed

from shoal.app import Shoal
from shoal.cli.main import main
from shoal.config.loader import Loaded
from shoal.errors import ConfigError
from shoal.plugin.interfaces import Operation, Resources, Route

EXAMPLES = {part.heading.strip("`").partition("(")[0]: part.blocks for part in parts("plugins.md")}
RUNTIME, NOTES = (EXAMPLES[f"shoal_register_{family}"][0][1] for family in ("runtimes", "resources"))
CREATE = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 60}


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A server with the runtime and the resources of docs/plugins.md, both found by entry point."""
    with installed(tmp_path, monkeypatch, reef=RUNTIME, notes=NOTES):
        raw = {"server": {"host": "127.0.0.1"}, "plugins": {"enabled": ["reef", "notes"]}}
        server = Shoal(Loaded(raw=raw))
        await server.start()
        try:
            transport = httpx.ASGITransport(server.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as found:
                yield found
        finally:
            await server.stop()


async def test_its_routes_answer_bare_and_below_v1(client: httpx.AsyncClient) -> None:
    made = (await client.post("/v1/sandboxes", json=CREATE)).json()["id"]
    assert (await client.put(f"/v1/sandboxes/{made}/note", json={"text": "mine"})).status_code == 204
    assert (await client.get(f"/sandboxes/{made}/note")).json() == {"text": "mine"}
    refused = await client.put(f"/v1/sandboxes/{made}/note", json={"text": 1})
    assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "text"])
    missing = await client.get("/v1/sandboxes/none/note")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOTES::NOT_FOUND")
    assert (await client.delete(f"/v1/sandboxes/{made}/note")).headers["allow"] == "GET, PUT"


async def test_its_operations_are_in_the_document(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    written = document["paths"]["/v1/sandboxes/{sandbox_id}/note"]["put"]
    assert written["operationId"] == "putSandboxNoteV1"
    assert written["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Note"}
    assert document["components"]["schemas"]["Note"]["description"] == "A remark about a sandbox."
    assert "putSandboxNote" in document["paths"]["/sandboxes"]["post"]["responses"]["202"]["links"]


class Reef:
    @Operation(name="readReef", summary="Read.", scope="diver")
    async def on_get(self, _req: Request, resp: Response) -> None:
        resp.status = 204

    async def on_post(self, _req: Request, resp: Response) -> None:
        resp.status = 204


class Reefs(Resources):
    name = "reefs"

    def __init__(self, *routes: Route) -> None:
        self._routes = routes

    def routes(self) -> Sequence[Route]:
        return self._routes


@pytest.mark.parametrize(
    ("word", "get", "post"),
    [("diver", 204, 403), ("read", 403, 403), ("write", 403, 204), ("read+write+proxy", 403, 204)],
)
async def test_a_declared_scope_takes_the_place_of_the_methods(word: str, get: int, post: int) -> None:
    web = Web(authenticators=[WordAuthenticator()], resources=[Reefs(Route("/reef", Reef()))])
    transport = httpx.ASGITransport(web.app())
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers={"x-word": word}) as client:
        assert [(await client.request(method, "/v1/reef")).status_code for method in ("GET", "POST")] == [get, post]


async def test_a_public_route_is_bare_and_asks_for_no_credential() -> None:
    web = Web(authenticators=[WordAuthenticator()], resources=[Reefs(Route("/reef", Reef(), public=True))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web.app()), base_url="http://x") as client:
        assert [(await client.get(path)).status_code for path in ("/reef", "/v1/reef", "/reef/")] == [204, 401, 401]


@pytest.mark.parametrize(
    ("routes", "told"),
    [
        ([Route("/pools", Reef())], "resources 'pools' and 'reefs' both have the path '/pools'"),
        (
            [Route("/a", Reef()), Route("/b", Reef())],
            "resources 'reefs' and 'reefs' both have the operation 'readReef'",
        ),
        ([Route("/docs", Reef())], "resources 'reefs': the path '/docs' is the server's own"),
        (
            [Route("/sandboxes/{sandbox_id}/proxy/{port}", Reef())],
            "resources 'reefs': the path '/sandboxes/{sandbox_id}/proxy/{port}' is the server's own",
        ),
        ([Route("/v1/pools", Reef())], "resources 'pools' and 'reefs' both have the path '/v1/pools'"),
        ([Route("reef", Reef())], "resources 'reefs': 'reef' is no path for a route"),
        ([Route("/reef/{name}", Reef(), public=True)], "resources 'reefs': '/reef/{name}' is no path for a route"),
        ([Route("/sandboxes/{other}", Reef())], "the route '/sandboxes/{other}' cannot be served: "),
    ],
)
def test_a_route_that_is_not_free_stops_the_start(routes: list[Route], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Web(resources=[Reefs(*routes)]).app()
    assert str(caught.value).startswith(told)


class Broken(Resources):
    name = "broken"

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def routes(self) -> Sequence[Route]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer  # type: ignore[return-value]  # that is what is wrong


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (KeyError("coral"), "resources 'broken' failed in routes: KeyError: 'coral'"),
        (["/reef"], "resources 'broken': routes must return a list of Route"),
        (None, "resources 'broken' failed in routes: TypeError: "),
    ],
)
def test_a_group_that_lists_no_routes_is_named(answer: object, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Web(resources=[Broken(answer)]).table()
    assert str(caught.value).startswith(told)


def test_check_config_finds_a_route_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = NOTES.replace('"/sandboxes/{sandbox_id}/note"', '"/pools/{name}"')
    config = tmp_path / "shoal.toml"
    config.write_text('[server]\nhost = "127.0.0.1"\n[plugins]\nenabled = ["reef", "notes", "sqlite_store"]\n')
    with installed(tmp_path, monkeypatch, reef=RUNTIME, notes=taken):
        assert main(["check-config", "--config", str(config)]) == 1
    assert capsys.readouterr().err == (
        "shoal: resources 'pools' and 'notes' of the plugin 'notes' both have the path '/pools/{name}'\n"
    )
