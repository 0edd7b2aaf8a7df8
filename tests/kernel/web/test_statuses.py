"""An SDK is told every failure with a status that it parses on that route; everybody else with the error's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import opensandbox.api.lifecycle.api
import pytest
from tests.kernel.web.wired import Web

import shoal.errors
from shoal.errors import ShoalError, Unavailable
from shoal.models.statuses import PARSED, REPEATED, REPEATED_METHODS, readable

AGENTS = ["OpenSandbox-Python-SDK/1.1.1", "OpenSandbox-Go-SDK/0.1.0", "x OpenSandbox-Java-SDK/2 y"]
NO_CAUSE = {
    ("GET", "/sandboxes/{sandbox_id}"): {400, 409, 413, 422, 501},
    ("GET", "/sandboxes/{sandbox_id}/networkpolicy"): {413, 422, 501},
    ("GET", "/templates"): {400, 408, 409, 431, 413, 422, 500, 504, 404, 508},
    ("GET", "/templates/{template_id}"): {400, 408, 409, 431, 413, 422, 500, 504, 508},
    ("DELETE", "/templates/{template_id}"): {400, 408, 409, 431, 413, 422, 500, 504, 508},
}
"""Failures that do not exist there: such a request holds nothing to be wrong, and a 500 where nothing is done."""


def every_status(kind: type[ShoalError] = ShoalError) -> Iterator[int]:
    """Of each error that the kernel knows and a plugin may raise."""
    for child in kind.__subclasses__():
        if child.__module__ == shoal.errors.__name__:
            yield child.status
            yield from every_status(child)


STATUSES = sorted({*every_status(), 500} - {405})


@pytest.mark.parametrize(("method", "route"), PARSED)
def test_there_is_a_status_for_every_failure_on_every_route(method: str, route: str) -> None:
    for mount, status in product(("", "/v1"), STATUSES):
        told = readable(method, mount + route, status)
        left = told == 501 or (method in REPEATED_METHODS and told in REPEATED)
        if status not in NO_CAUSE.get((method, route), ()):
            assert told in PARSED[method, route] or left, status


def test_the_table_is_what_the_sdk_parses() -> None:
    found: dict[tuple[str, str], frozenset[int]] = {}
    for file in Path(opensandbox.api.lifecycle.api.__path__[0]).glob("*/*.py"):
        source = file.read_text()
        url, method = re.search(r'"url": "([^"]+)"', source), re.search(r'"method": "([a-z]+)"', source)
        if url and method:
            statuses = {int(number) for number in re.findall(r"status_code == (\d+)", source)}
            found[method[1].upper(), url[1]] = frozenset(status for status in statuses if status >= 400)
    assert found == PARSED


def test_the_table_has_every_route_that_sdks_call() -> None:
    ours = {(row.method.upper(), row.path) for row in Web().table().rows if not row.public}
    unasked = {(method, path) for method, path in ours if "diagnostics" in path or "pools" in path}
    unoffered = {(method, path) for method, path in PARSED if "templates" in path}
    assert set(PARSED) == (ours - unasked) | unoffered


@pytest.mark.parametrize("agent", AGENTS)
async def test_an_sdk_gets_code_and_message_that_it_can_read(web: Web, client: httpx.AsyncClient, agent: str) -> None:
    web.sandboxes.failure = Unavailable("STORE::FULL", "The disk is full.")
    body = {"image": {"uri": "x"}, "entrypoint": ["x"], "resourceLimits": {}}
    answer = await client.post("/v1/sandboxes", json=body, headers={"User-Agent": agent})
    assert (answer.status_code, answer.json()["code"]) == (500, "STORE::FULL")
    plain = await client.post("/v1/sandboxes", json=body)
    assert (plain.status_code, plain.json()["code"]) == (503, "STORE::FULL")


async def test_a_request_that_an_sdk_repeats_stays_repeatable(web: Web, client: httpx.AsyncClient) -> None:
    web.sandboxes.failure = Unavailable("SERVER::STOPPING", "The server is stopping.")
    answer = await client.delete("/v1/sandboxes/x", headers={"User-Agent": AGENTS[0]})
    assert (answer.status_code, answer.json()["code"]) == (503, "SERVER::STOPPING")


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", ""), ("GET", "/tpl-1"), ("DELETE", "/tpl-1")])
async def test_there_are_no_templates(client: httpx.AsyncClient, method: str, path: str) -> None:
    body = {"image": "python:3.13", "publish": "s3://images/x", "resourceLimits": {"disk": "2Gi"}}
    for mount in ("", "/v1"):
        answer = await client.request(method, f"{mount}/templates{path}", json=body if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (501, "FSB::API_NOT_SUPPORTED")


@pytest.mark.parametrize("body", [{}, {"image": "x", "publish": "y", "other": 1}, {"image": "", "publish": "y"}])
async def test_what_is_no_template_is_refused_before(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await client.post("/v1/templates", json=body)).status_code == 422
    assert (await client.get("/v1/templates?page=0")).status_code == 422


async def test_a_schema_failure_is_a_400_to_an_sdk(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/sandboxes", json={}, headers={"User-Agent": AGENTS[0]})
    assert (answer.status_code, answer.json()["code"]) == (400, "GENERAL::VALIDATION_ERROR")
    assert answer.json()["detail"]
    assert (await client.post("/v1/sandboxes", json={})).status_code == 422
