"""What clients are told leads through the gateway to the sandbox: asserted of the stand-in and of the real gateway."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple

import httpx
import pytest
from tests.gateway_ingress.real_gateway import RealGateway
from tests.gateway_ingress.stand_in import SECURE, Mode, StandIn

from shoal.models.sandbox import SandboxRecord, State
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import EndpointQuery
from shoal_gateway.access import TOKEN_LABEL
from shoal_gateway.ingress import GatewayIngress
from shoal_gateway.setup import Gateway
from shoal_gateway.signing import SigningKey, base36, signature

KEY = SigningKey("k", b"a key that both sides know")
OTHER = SigningKey("o", b"a key that only one side knows")
NOW = datetime.now(UTC)
HOUR = int(time.time()) + 3600
TOKEN = "c2VjcmV0LWFjY2Vzcy10b2tlbg"
KEYS = f"{KEY.id}={base64.b64encode(KEY.secret).decode()},z=b3RoZXI="
REAL = pytest.param(RealGateway, marks=[pytest.mark.needs("k8s"), pytest.mark.needs("real", parts=["ingress"])])
Way = Literal["wildcard", "header", "uri"]


class Service(BaseHTTPRequestHandler):
    """What runs in the sandbox: says how a request arrived."""

    def do_GET(self) -> None:
        content = json.dumps({"path": self.path, "headers": {k.lower(): v for k, v in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Site(NamedTuple):
    """A gateway, its sandboxes (one open, one with a token, one not ready), and a service of theirs."""

    gateway: StandIn | RealGateway
    port: int
    open: str
    secure: str
    late: str

    def told(self, way: Way, sandbox: str, expires: int | None = None, key: SigningKey = KEY) -> tuple[str, Any]:
        """The URL and the headers of an endpoint, as `GatewayIngress` tells them."""
        address = {"wildcard": "*.sandboxes.test", "header": "gw.test", "uri": f"127.0.0.1:{self.gateway.port}"}[way]
        token = {TOKEN_LABEL: TOKEN} if sandbox == self.secure else {}
        query = EndpointQuery(
            record=SandboxRecord(
                id=sandbox, runtime="x", state=State.RUNNING, since=NOW, created_at=NOW, entrypoint=[]
            ),
            workload=Workload(id=sandbox, phase=Phase.RUNNING, labels=token),
            port=self.port,
            base="",
            internal_address=None,
            expires=expires,
        )
        endpoint = GatewayIngress(Gateway(address, way, key)).endpoint(query)
        assert endpoint is not None
        headers = dict(endpoint.headers or {})
        if way != "uri":  # no name leads to loopback here, so the address goes into Host
            headers["Host"], endpoint.endpoint = endpoint.endpoint, f"127.0.0.1:{self.gateway.port}"
        return f"http://{endpoint.endpoint}/a/b?c=d", headers


@pytest.fixture(scope="module", params=[StandIn, REAL])
def kind(request: pytest.FixtureRequest) -> type[StandIn | RealGateway]:
    found: type[StandIn | RealGateway] = request.param
    return found


@pytest.fixture(scope="module")
def sites(kind: type[StandIn | RealGateway]) -> Iterator[dict[Mode, Site]]:
    made: dict[Mode, Site] = {}
    modes: tuple[Mode, ...] = ("header", "uri")
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        for mode in modes:
            gateway = kind(mode, KEYS)
            site = made[mode] = Site(gateway, service.server_port, *(str(uuid.uuid4()) for _ in range(3)))
            gateway.add(site.open)
            gateway.add(site.secure, token=TOKEN)
            gateway.add(site.late, ready=False)
        yield made
        for site in made.values():
            site.gateway.stop()
        service.shutdown()


@pytest.fixture(params=["wildcard", "header", "uri"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def site(sites: dict[Mode, Site], way: Way) -> Site:
    """The program's mode ``header`` serves wildcard routes, too."""
    return sites["uri" if way == "uri" else "header"]


def get(told: tuple[str, Any], **more: str) -> httpx.Response:
    return httpx.get(told[0], headers={**told[1], **more}, trust_env=False)


def arrived(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert answer.headers["reverse-proxy-server-powerby"] == "OpenSandbox-ingress"
    return answer.json()


@pytest.mark.parametrize("signed", [False, True])
def test_an_open_sandbox_is_reached_signed_or_not(site: Site, way: Way, signed: bool) -> None:
    seen = arrived(get(site.told(way, site.open, HOUR if signed else None)))
    assert seen["path"] == "/a/b?c=d"
    assert not {"opensandbox-ingress-to", SECURE.lower()} & seen["headers"].keys()


def test_a_sandbox_with_a_token_is_reached_by_it(site: Site, way: Way) -> None:
    told = site.told(way, site.secure)
    assert get(told).status_code == 401
    assert get(told, **{SECURE: "wrong"}).status_code == 401
    seen = arrived(get(told, **{SECURE: TOKEN}))
    assert seen["path"] == "/a/b?c=d"
    assert SECURE.lower() not in seen["headers"]


def test_a_sandbox_with_a_token_is_reached_by_a_signature(site: Site, way: Way) -> None:
    told = site.told(way, site.secure, HOUR)
    assert arrived(get(told))["path"] == "/a/b?c=d"
    assert get(told, **{SECURE: "wrong"}).status_code == 401


def test_a_signature_of_an_unknown_key_is_refused(site: Site, way: Way) -> None:
    assert get(site.told(way, site.secure, HOUR, OTHER)).status_code == 401


@pytest.mark.parametrize("changed", ["port", "sandbox", "moment", "over"])
def test_a_signature_is_for_one_port_of_one_sandbox_until_a_moment(site: Site, way: Way, changed: str) -> None:
    moment = base36(HOUR)
    right = signature(KEY, site.secure, site.port, moment)
    past = base36(int(time.time()) - 60)
    exchanged = {
        "port": (moment, signature(KEY, site.secure, site.port + 1, moment)),
        "sandbox": (moment, signature(KEY, site.open, site.port, moment)),
        "moment": (base36(HOUR + 1), right),
        "over": (past, signature(KEY, site.secure, site.port, past)),
    }[changed]
    url, headers = site.told(way, site.secure, HOUR)
    mark = "/" if way == "uri" else "-"
    old, new = mark.join([moment, right]), mark.join(exchanged)
    forged = url.replace(old, new), {name: value.replace(old, new) for name, value in headers.items()}
    assert forged != (url, headers)
    assert get(forged).status_code == 401


def test_who_is_not_there_or_not_ready(site: Site, way: Way) -> None:
    assert get(site.told(way, str(uuid.uuid4()))).status_code == 404
    assert get(site.told(way, site.late)).status_code == 503


def test_what_names_no_sandbox_is_refused(site: Site, way: Way) -> None:
    url = f"http://127.0.0.1:{site.gateway.port}/no-route"
    assert get((url, {"Host": "sandboxes.test"})).status_code == 400


def test_a_key_without_its_padding_is_refused(kind: type[StandIn | RealGateway]) -> None:
    with pytest.raises(ValueError, match=r"illegal base64|padding"):
        kind("header", f"k={base64.b64encode(KEY.secret).decode().rstrip('=')}")


def test_without_keys_a_signature_cannot_be_judged(kind: type[StandIn | RealGateway]) -> None:
    gateway = kind("header")
    site = Site(gateway, 1, "", str(uuid.uuid4()), "")
    gateway.add(site.secure, token=TOKEN)
    try:
        assert get(site.told("header", site.secure, HOUR)).status_code == 503
    finally:
        gateway.stop()
