"""curl, as people use it, through the proxy of a real server to a service in a local sandbox."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.contract.key import KEY
from tests.support.servers import ServerProcess, free_port

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

ECHO = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        length = self.headers.get("Content-Length")
        if length is not None:
            body = self.rfile.read(int(length))
        elif self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = b""
        told = f"{self.command} {self.path} {len(body)}\\n".encode()
        self.send_response(200)
        if self.path == "/unsized":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(told)))
        self.send_header("Allow", "GET, PUT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told)
    do_GET = do_HEAD = do_PUT = do_POST = do_OPTIONS = do_DELETE = do_PATCH = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""Answers any method; Python's server sends ``100 Continue`` by itself where it is expected."""


class Curl:
    """curl with the key, to one port of a sandbox."""

    def __init__(self, base: str) -> None:
        self.base = base

    def __call__(self, path: str, *options: str) -> str:
        command = ["curl", "-sS", "-m", "60", "--path-as-is", "-H", f"OPEN-SANDBOX-API-KEY: {KEY}", *options]
        done = subprocess.run([*command, self.base + path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def curl(server: ServerProcess) -> Iterator[Curl]:
    port = free_port()
    body = {
        "image": {"uri": "host"},
        "entrypoint": ["python3", "-c", ECHO, str(port)],
        "resourceLimits": {},
        "timeout": 600,
    }
    with httpx.Client(base_url=server.base + "/v1", headers={"OPEN-SANDBOX-API-KEY": KEY}, timeout=60) as http:
        sandbox_id = http.post("/sandboxes", json=body).json()["id"]
        deadline = time.monotonic() + 60
        while http.get(f"/sandboxes/{sandbox_id}/proxy/{port}/").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield Curl(f"{server.base}/v1/sandboxes/{sandbox_id}/proxy/{port}")
        http.delete(f"/sandboxes/{sandbox_id}")


@pytest.mark.parametrize("path", ["/", "/a/../b", "/a%2Fb?c=%20d", "/a..b", "/%E2%9C%93?x=1&x=2", "/e?"])
def test_paths_as_they_are(curl: Curl, path: str) -> None:
    assert curl(path) == f"GET {path} 0\n"


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_methods(curl: Curl, method: str) -> None:
    assert curl("/m", "-X", method) == f"{method} /m 0\n"


def test_head(curl: Curl) -> None:
    said = curl("/h", "-I")
    assert said.startswith("HTTP/1.1 200")
    assert "content-length: 10" in said.lower()


def test_a_large_upload_waits_for_the_go_ahead(curl: Curl, tmp_path: Path) -> None:
    """curl asks with ``Expect: 100-continue`` by itself for a body of this size."""
    body = tmp_path / "body"
    body.write_bytes(b"x" * 3_000_000)
    said = curl("/up", "-v", "--stderr", "-", "-H", "Expect: 100-continue", "-T", str(body))
    assert "HTTP/1.1 100 Continue" in said
    assert "PUT /up 3000000\n" in said


def test_a_chunked_upload(curl: Curl, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"x" * 100_000)
    assert curl("/up", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "-T", str(body)) == "PUT /up 100000\n"


def test_http_1_0_is_answered_without_chunks(curl: Curl) -> None:
    """The service's answer has no length, so that over HTTP/1.1 it would come in chunks."""
    said = curl("/unsized", "-0", "-i", "--raw").lower()
    assert said.startswith("http/1.1 200")
    assert "transfer-encoding" not in said
    assert said.endswith("\n\nget /unsized 0\n")


def test_over_http_1_1_the_same_is_chunked(curl: Curl) -> None:
    said = curl("/unsized", "-i", "--raw").lower()
    assert "transfer-encoding: chunked" in said
    assert said.endswith("\n0\n\n")  # read as text, which makes one character of CRLF


def test_a_413_reaches_a_client_that_still_sends(server: ServerProcess, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b" " * 20_000_000)
    options = ["-X", "POST", "-H", "Content-Type: application/json", "-H", "Expect:", "-w", "%{http_code}"]
    said = Curl(f"{server.base}/v1")("/sandboxes", *options, "-o", "/dev/null", "-T", str(body))
    assert said == "413"


def test_get_with_a_body(curl: Curl) -> None:
    assert curl("/q", "-X", "GET", "-d", "body") == "GET /q 4\n"


def test_many_over_one_connection(curl: Curl) -> None:
    said = curl("/1", curl.base + "/2", curl.base + "/3")
    assert sorted(said.splitlines()) == ["GET /1 0", "GET /2 0", "GET /3 0"]
