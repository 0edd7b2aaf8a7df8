"""What a request with, without and with a wrong key is answered."""

from __future__ import annotations

from typing import Literal

import pytest

from shoal.errors import Unauthenticated
from shoal.plugin.interfaces import AuthRequest, Principal
from shoal_apikey.authenticator import ApiKeyAuthenticator
from shoal_apikey.digests import digest
from shoal_apikey.keyring import Keyring, KeyringEntry
from shoal_apikey.sources import FixedSource

ALL = Principal(name="server")
READER = Principal(name="reader", scopes=frozenset({"read"}))


@pytest.fixture
def keyring() -> Keyring:
    keyring = Keyring(
        [
            KeyringEntry(FixedSource(frozenset({digest("Key-One")})), ALL),
            KeyringEntry(FixedSource(frozenset({digest("reader-schlüssel")})), READER),
        ]
    )
    keyring.load()
    return keyring


@pytest.fixture
def authenticator(keyring: Keyring) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(keyring)


@pytest.fixture
def open_proxy(keyring: Keyring) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(keyring, proxy="open")


def request(key: str | None, kind: Literal["api", "proxy"] = "api") -> AuthRequest:
    """A request with this value of the one header, as the server hands it over: by lower-case name."""
    headers = {} if key is None else {"open-sandbox-api-key": key}
    return AuthRequest(kind, "http", "GET", "/v1/sandboxes", headers.get)


async def test_a_known_key_is_its_principal(authenticator: ApiKeyAuthenticator) -> None:
    assert await authenticator.authenticate(request("Key-One")) == ALL


async def test_a_key_beyond_ascii_arrives_as_latin_1(authenticator: ApiKeyAuthenticator) -> None:
    on_the_wire = "reader-schlüssel".encode().decode("latin-1")
    assert await authenticator.authenticate(request(on_the_wire)) == READER


@pytest.mark.parametrize("wrong", ["key-one", "Key-One ", " Key-One", "Key-On", "Key-One2", "\udcff", "ключ"])
@pytest.mark.parametrize("kind", ["api", "proxy"])
async def test_any_other_key_is_refused(
    authenticator: ApiKeyAuthenticator, wrong: str, kind: Literal["api", "proxy"]
) -> None:
    with pytest.raises(Unauthenticated, match="INVALID_API_KEY") as caught:
        await authenticator.authenticate(request(wrong, kind))
    assert caught.value.status == 401
    assert wrong.strip() not in caught.value.message


@pytest.mark.parametrize("kind", ["api", "proxy"])
@pytest.mark.parametrize("key", [None, ""])
async def test_no_key_is_for_others_to_judge(
    authenticator: ApiKeyAuthenticator, key: str | None, kind: Literal["api", "proxy"]
) -> None:
    assert await authenticator.authenticate(request(key, kind)) is None
    assert authenticator.missing().code == "MISSING_API_KEY"
    assert authenticator.missing().status == 401


@pytest.mark.parametrize("key", [None, "", "wrong", "reader-schlüssel"])
async def test_an_open_proxy_lets_everybody_through(open_proxy: ApiKeyAuthenticator, key: str | None) -> None:
    principal = await open_proxy.authenticate(request(key, "proxy"))
    assert principal == Principal(name="anonymous", scopes=frozenset({"proxy"}))


async def test_an_open_proxy_knows_whom_it_knows(open_proxy: ApiKeyAuthenticator) -> None:
    assert await open_proxy.authenticate(request("Key-One", "proxy")) == ALL


async def test_an_open_proxy_opens_nothing_else(open_proxy: ApiKeyAuthenticator) -> None:
    assert await open_proxy.authenticate(request(None)) is None
    with pytest.raises(Unauthenticated, match="INVALID_API_KEY"):
        await open_proxy.authenticate(request("wrong"))


@pytest.fixture
def open_paths(keyring: Keyring) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(keyring, proxy="open-paths")


ANONYMOUS = Principal(name="anonymous", scopes=frozenset({"proxy"}))


def proxied(path: str, key: str | None = None) -> AuthRequest:
    return AuthRequest("proxy", "http", "GET", path, {"open-sandbox-api-key": key}.get)


@pytest.mark.parametrize("key", [None, "wrong", "reader-schlüssel"])
@pytest.mark.parametrize("path", ["/sandboxes/id/proxy/80", "/v1/sandboxes/id/proxy/80/a/b", "/sandboxes/i/proxy/1/"])
async def test_open_paths_need_no_key(open_paths: ApiKeyAuthenticator, path: str, key: str | None) -> None:
    assert await open_paths.authenticate(proxied(path, key)) == ANONYMOUS


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/sandboxes/id/proxy/80",
        "/sandboxes/id/proxy/80x",
        "/sandboxes/id/proxy/80/a..b",
        "/v2/sandboxes/i/proxy/8",
    ],
)
async def test_other_proxied_requests_do(open_paths: ApiKeyAuthenticator, path: str) -> None:
    assert await open_paths.authenticate(proxied(path)) is None
    with pytest.raises(Unauthenticated, match="INVALID_API_KEY"):
        await open_paths.authenticate(proxied(path, "wrong"))


async def test_open_paths_open_nothing_else(open_paths: ApiKeyAuthenticator) -> None:
    assert await open_paths.authenticate(request(None)) is None
    with pytest.raises(Unauthenticated, match="INVALID_API_KEY"):
        await open_paths.authenticate(request("wrong"))


def test_the_document_names_the_header(authenticator: ApiKeyAuthenticator) -> None:
    [(name, scheme)] = authenticator.security_schemes().items()
    assert (name, scheme["type"], scheme["in"], scheme["name"]) == (
        "apiKey",
        "apiKey",
        "header",
        "OPEN-SANDBOX-API-KEY",
    )
