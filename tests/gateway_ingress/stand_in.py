"""A gateway for tests where the real one is not at hand. What it keeps to, each as the real gateway was seen to do:

- Keys are ``id=base64`` with commas between; base64 without its padding is refused, and the program does not start.
- Mode ``header``: the first of `OpenSandbox-Ingress-To`, `OPEN-SANDBOX-INGRESS` and the Host counts, and of it the
  first label: ``<id>-<port>``, signed if its last parts fit ``<port>-<E>-<signature>``. Wildcard routes are this mode.
- Mode ``uri``: ``/<id>/<port>/<path>``; ``/<id>/<port>/<E>/<signature>/<path>`` only for sandboxes with a token: for
  any other those two segments are the application's.
- Unknown sandbox 404, not ready 503, no route 400.
- A sandbox with a token: an equal `OpenSandbox-Secure-Access` is let in, another one is 401 even beside a signature.
  Without the header a signature is wanted that fits, by a known key, not expired: 401 otherwise; 503 without any keys.
- Neither of the two headers goes on; answers gain `Reverse-Proxy-Server-PowerBy: OpenSandbox-ingress`.

`test_gateway_routes` makes the same assertions on both.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, NamedTuple

import httpx

Mode = Literal["header", "uri"]

SECURE = "OpenSandbox-Secure-Access"
ROUTES = ("OpenSandbox-Ingress-To", "OPEN-SANDBOX-INGRESS")
_SIGNED = re.compile(r"(.+)-([1-9][0-9]{0,4})-(0|[1-9a-z][0-9a-z]{0,12})-([0-9a-f]{8}[0-9a-z])")
_PLAIN = re.compile(r"(.+)-([1-9][0-9]{0,4})")
_SIGNED_PATH = re.compile(r"/([^/]+)/([1-9][0-9]{0,4})/(0|[1-9a-z][0-9a-z]{0,12})/([0-9a-f]{8}[0-9a-z])(/.*)?")
_PLAIN_PATH = re.compile(r"/([^/]+)/([1-9][0-9]{0,4})(/.*)?")


class Refused(Exception):
    """An answer of the gateway's own."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Box(NamedTuple):
    """A sandbox as the gateway sees it."""

    token: str = ""
    ready: bool = True


class Route(NamedTuple):
    """What a request names."""

    sandbox: str
    port: int
    expires: str = ""
    signature: str = ""
    path: str | None = None


def parse_keys(text: str) -> dict[str, bytes]:
    """The flag's value. Raises ValueError for a key without padding, an empty one, or an id of several characters."""
    keys = {}
    for part in filter(None, map(str.strip, text.split(","))):
        key_id, equals, key = part.partition("=")
        if not equals or re.fullmatch("[0-9a-z]", key_id) is None:
            raise ValueError(f"invalid segment for key {key_id!r}")
        keys[key_id] = base64.b64decode(key, validate=True)
        if not keys[key_id]:
            raise ValueError(f"empty key {key_id!r}")
    return keys


class StandIn:
    """A running gateway on a port of loopback; its sandboxes are all at 127.0.0.1."""

    def __init__(self, mode: Mode, keys: str = "") -> None:
        self.mode = mode
        self._keys = parse_keys(keys)
        self._boxes: dict[str, Box] = {}
        handler = type("Handler", (_Handler,), {"gateway": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, sandbox: str, *, token: str = "", ready: bool = True) -> None:
        """A sandbox appears."""
        self._boxes[sandbox] = Box(token, ready)

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()

    def resolve(self, host: str, path: str, headers: Mapping[str, str]) -> Route:
        """Where a request goes on to. Raises Refused."""
        route = self._by_path(path) if self.mode == "uri" else self._by_name(host, headers)
        box = self._boxes.get(route.sandbox)
        if box is None:
            raise Refused(404)
        if not box.ready:
            raise Refused(503)
        if box.token:
            self._admit(route, box.token, headers)
        elif self.mode == "uri" and route.signature:
            route = _plain_path(path)
        return route

    def _by_name(self, host: str, headers: Mapping[str, str]) -> Route:
        named = next((headers[name] for name in ROUTES if headers.get(name)), host)
        label = named.partition(".")[0]
        if found := _SIGNED.fullmatch(label):
            return Route(found[1], int(found[2]), found[3], found[4])
        if found := _PLAIN.fullmatch(label):
            return Route(found[1], int(found[2]))
        raise Refused(400)

    def _by_path(self, path: str) -> Route:
        if found := _SIGNED_PATH.fullmatch(path):
            return Route(found[1], int(found[2]), found[3], found[4], found[5] or "/")
        return _plain_path(path)

    def _admit(self, route: Route, token: str, headers: Mapping[str, str]) -> None:
        sent = headers.get(SECURE)
        if sent is not None:
            if sent.strip() != token:
                raise Refused(401)
            return
        if not route.signature:
            raise Refused(401)
        if not self._keys:
            raise Refused(503)
        key = self._keys.get(route.signature[8])
        if key is None or int(route.expires, 36) < time.time() or _digest(key, route) != route.signature[:8]:
            raise Refused(401)


def _plain_path(path: str) -> Route:
    found = _PLAIN_PATH.fullmatch(path)
    if found is None:
        raise Refused(400)
    return Route(found[1], int(found[2]), path=found[3] or "/")


def _digest(key: bytes, route: Route) -> str:
    message = f"v1\nshort\n{route.sandbox}\n{route.port}\n{route.expires}\n".encode()
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (key, message))
    return hashlib.sha256(parts).hexdigest()[:8]


class _Handler(BaseHTTPRequestHandler):
    gateway: StandIn

    def do_GET(self) -> None:
        path, mark, query = self.path.partition("?")
        try:
            route = self.gateway.resolve(self.headers.get("Host", ""), path, self.headers)  # type: ignore[arg-type]  # it is a Mapping but in name
            onward = f"http://127.0.0.1:{route.port}{path if route.path is None else route.path}{mark}{query}"
            dropped = {name.lower() for name in (*ROUTES[:1], SECURE, "Host")}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            answer = httpx.get(onward, headers=headers, trust_env=False)
            status, content = answer.status_code, answer.content
        except Refused as refused:
            status, content = refused.status, b"refused\n"
        self.send_response(status)
        self.send_header("Reverse-Proxy-Server-PowerBy", "OpenSandbox-ingress")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
