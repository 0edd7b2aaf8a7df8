"""``shoal demo``: one sandbox's whole life on the embedded local runtime, told step by step.

Starts a real server in a process of its own, with a store in a temporary directory, and talks to it over HTTP as any
client would. Exits with 1 as soon as something is not as it should be.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

SERVICE = """\
import http.server, json, os, socket, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
        seen = {"path": self.path, "pid": os.getpid(), "uid": os.getuid(), "hostname": socket.gethostname(),
                "processes it can see": len(processes)}
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("service listening on", sys.argv[1], flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""What runs in the sandbox: a web service that says what the sandbox looks like from inside."""


class DemoError(Exception):
    """Something was not as it should be; the text says what."""


def main() -> int:
    """Run the demo; returns the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shoal-demo-") as directory:
        demo = Demo(Path(directory))
        try:
            demo.start()
            demo.live()
        except (DemoError, OSError) as error:
            print(f"\nFAILED: {error}\n\nThe server's log:\n{demo.log_tail()}", file=sys.stderr)
            return 1
        finally:
            demo.stop()
    print(f"\nDone: one sandbox's whole life in {time.monotonic() - begun:.1f} s. Next: shoal serve, and the README.")
    return 0


class Demo:
    """A server below ``home``, and the steps of the story."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._port = _free_port()
        self._base = f"http://127.0.0.1:{self._port}"
        self._log = home / "server.log"
        self._python = Path(sys.executable).resolve()
        self._prefix = Path(sys.base_prefix).resolve()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start ``shoal serve`` and wait until it answers."""
        config = self._home / "shoal.toml"
        config.write_text(
            f'[server]\nhost = "127.0.0.1"\nport = {self._port}\n'
            f'[store]\npath = "{self._home}/shoal.db"\n'
            f'[storage]\nallowed_host_paths = ["{self._prefix}"]\n'
        )
        _say("Start the server", f"shoal serve --config {config}")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own executable
                [sys.executable, "-m", "shoal.cli.main", "serve", "--config", str(config)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while True:
            if self._process.poll() is not None:
                raise DemoError(f"the server ended with code {self._process.returncode}")
            try:
                health = self._call("GET", "/health")
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise DemoError("the server did not answer within 30 s") from None
                time.sleep(0.02)
        _told(f"{self._base} is {health['status']}")

    def live(self) -> None:
        """Create, reach, renew, pause, resume, show logs, delete."""
        port = _free_port()
        sandbox = self._create(port)
        path = f"/v1/sandboxes/{sandbox}"
        self._reach(path, port)
        self._renew(path)
        self._pause_and_resume(path, port)
        self._show(path)
        self._delete(path)

    def _create(self, port: int) -> str:
        body = {
            "image": {"uri": "host"},
            "entrypoint": [str(self._python), "-u", "-c", SERVICE, str(port)],
            "timeout": 300,
            "resourceLimits": {"memory": "256Mi", "cpu": "500m"},
            "metadata": {"made-by": "demo"},
            "volumes": self._volumes(),
        }
        _say("Create a sandbox that runs a small web service", "POST /v1/sandboxes")
        begun = time.monotonic()
        made = self._call("POST", "/v1/sandboxes", body, 202)
        _told(f"202 {made['status']['state']}: {made['id']}, accepted in {_ms(begun)}, expires {made['expiresAt']}")
        seen = self._call("GET", f"/v1/sandboxes/{made['id']}?wait=Running&timeout=30")
        if seen["status"]["state"] != "Running":
            raise DemoError(f"the sandbox is {seen['status']}")
        _told(f"Running after {_ms(begun)}")
        return str(made["id"])

    def _volumes(self) -> list[dict[str, Any]]:
        """The interpreter, read-only, where the sandbox would not see it: in a home directory, say."""
        hidden = (Path.home(), Path("/root"), Path("/home"), Path("/tmp"))  # noqa: S108 - compared, not used
        if not any(self._prefix.is_relative_to(place) for place in hidden):
            return []
        host = {"path": str(self._prefix)}
        return [{"name": "python", "host": host, "mountPath": str(self._prefix), "readOnly": True}]

    def _reach(self, path: str, port: int) -> None:
        _say("Talk to it through the server's proxy", f"GET {path}/proxy/{port}/hello?from=demo")
        deadline = time.monotonic() + 20
        while True:
            try:
                seen = self._call("GET", f"{path}/proxy/{port}/hello?from=demo")
                break
            except DemoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # the service needs a moment before it listens
        _told("the service answers: " + json.dumps(seen))

    def _renew(self, path: str) -> None:
        _say("Let it live longer", f"POST {path}/renew-expiration")
        later = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
        _told("expires " + self._call("POST", f"{path}/renew-expiration", {"expiresAt": later})["expiresAt"])

    def _pause_and_resume(self, path: str, port: int) -> None:
        _say("Pause it: every process of it is frozen", f"POST {path}/pause")
        self._call("POST", f"{path}/pause", status=202)
        refused = self._call("GET", f"{path}/proxy/{port}/", status=409)
        _told(f"{self._call('GET', path)['status']['state']}; the proxy now says {refused['code']}")
        _say("Resume it", f"POST {path}/resume")
        self._call("POST", f"{path}/resume", status=202)
        answer = self._call("GET", f"{path}/proxy/{port}/again")
        _told(f"{self._call('GET', path)['status']['state']}; the same process answers, pid {answer['pid']}")

    def _show(self, path: str) -> None:
        _say("Show its logs", f"GET {path}/diagnostics/logs?tail=5")
        for line in self._text(f"{path}/diagnostics/logs?tail=5").splitlines():
            _told(line)
        _say("Say what is isolated and limited", f"GET {path}/diagnostics/inspect")
        told = self._text(f"{path}/diagnostics/inspect")
        for line in told[told.index("Isolation:") : told.index("Network:")].splitlines():
            _told(line)

    def _delete(self, path: str) -> None:
        _say("Delete it", f"DELETE {path}")
        begun = time.monotonic()
        self._call("DELETE", path, status=204)
        gone = self._call("GET", path, status=404)
        _told(f"gone after {_ms(begun)}: {gone['code']}")

    def stop(self) -> None:
        """Stop the server, if it runs."""
        if self._process is None or self._process.poll() is not None:
            return
        _say("Stop the server", "SIGTERM")
        self._process.send_signal(signal.SIGTERM)
        try:
            _told(f"exit code {self._process.wait(20)}")
        except subprocess.TimeoutExpired:
            self._process.kill()

    def log_tail(self) -> str:
        """The end of the server's log."""
        return self._log.read_text(errors="replace")[-3000:] if self._log.exists() else "(none)"

    def _call(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """One request; the decoded answer. Raises DemoError for another status than ``status``."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        request = urllib.request.Request(self._base + path, data, headers, method=method)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                got, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                got, text = error.code, error.read()
        if got != status:
            raise DemoError(f"{method} {path} answered {got}, not {status}: {text.decode(errors='replace')[:500]}")
        return json.loads(text) if text else None

    def _text(self, path: str) -> str:
        with urllib.request.urlopen(self._base + path, timeout=60) as answer:  # noqa: S310 - loopback
            return str(answer.read().decode())


def _say(what: str, how: str) -> None:
    print(f"\n* {what}\n    {how}", flush=True)


def _told(text: str) -> None:
    print(f"    > {text}", flush=True)


def _ms(begun: float) -> str:
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
