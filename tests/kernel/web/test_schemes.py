"""What `/openapi.json` says of credentials: the schemes of the enabled authenticators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from schemathesis import openapi as schemas
from tests.kernel.web.wired import Web

from shoal.errors import ConfigError
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Authenticator, AuthRequest, Principal
from shoal.testing import server_with
from shoal.web.schemes import schemes_of

Connect = Callable[[], httpx.AsyncClient]

BEARER = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
OIDC = {"sso": {"type": "openIdConnect", "openIdConnectUrl": "https://id.example/.well-known/openid-configuration"}}


class Stranger(Authenticator):
    """A plugin's authenticator that says this of itself."""

    name = "stranger"

    def __init__(self, told: Any) -> None:
        self._told = told

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        return None

    def security_schemes(self) -> Mapping[str, Mapping[str, Any]]:
        if isinstance(self._told, Exception):
            raise self._told
        return self._told  # type: ignore[no-any-return]

    @hookimpl
    def shoal_register_authenticators(self) -> list[Authenticator]:
        return [self]


class Silent(Authenticator):
    name = "silent"

    async def authenticate(self, request: AuthRequest) -> Principal | None:
        return None


async def told(web: Web, connect: Connect, *authenticators: Authenticator) -> tuple[Any, Any]:
    web.authenticators += authenticators
    async with connect() as client:
        document = (await client.get("/openapi.json")).json()
    assert schemas.from_dict(document).raw_schema == document
    return document["components"]["securitySchemes"], document.get("security")


async def test_without_authenticators_the_wires_own_key_is_optional(web: Web, connect: Connect) -> None:
    known, security = await told(web, connect)
    assert (known["apiKey"]["in"], known["apiKey"]["name"]) == ("header", "OPEN-SANDBOX-API-KEY")
    assert security == [{"apiKey": []}, {}]


async def test_any_of_all_that_are_named_will_do(web: Web, connect: Connect) -> None:
    known, security = await told(web, connect, Stranger(BEARER), Silent(), Stranger({**OIDC, **BEARER}))
    assert known == {**BEARER, **OIDC}
    assert security == [{"bearer": []}, {"sso": []}]


async def test_of_one_that_says_nothing_nothing_is_said(web: Web, connect: Connect) -> None:
    assert await told(web, connect, Silent()) == ({}, None)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ([], "must return a dict"),
        (None, "must return a dict"),
        ({"a b": BEARER["bearer"]}, "'a b' has a name that OpenAPI does not allow"),
        ({"bearer": "http"}, "'bearer' needs a type: one of apiKey, http"),
        ({"bearer": {"type": "jwt"}}, "'bearer' needs a type: one of apiKey, http"),
        ({"key": {"type": "apiKey", "in": "header"}}, "'key' lacks name, which the type apiKey needs"),
        ({"key": {"type": "apiKey"}}, "'key' lacks name and in, which the type apiKey needs"),
        ({"bearer": {"type": "http", "scheme": object()}}, "failed in security_schemes: TypeError"),
        (RuntimeError("boom"), "failed in security_schemes: RuntimeError: boom"),
    ],
)
async def test_what_is_no_scheme_stops_the_start_with_the_plugins_name(wrong: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=r"^plugin 'odd': the authenticator 'stranger'") as raised:
        async with server_with(odd=Stranger(wrong)):
            pass
    assert problem in str(raised.value)


def test_two_of_one_name_must_be_the_same() -> None:
    other = {"bearer": {"type": "http", "scheme": "bearer"}}
    one, two = Stranger(BEARER), Stranger(other)
    with pytest.raises(ConfigError, match=r"plugin 'b': .* the security scheme 'bearer' is another one of plugin 'a'"):
        schemes_of([one, two], {id(one): "a", id(two): "b"})
