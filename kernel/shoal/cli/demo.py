"""``shoal demo``: one sandbox's whole life on the embedded local runtime, printed step by step, without an SDK.

Starts a real server in a process of its own, with a store in a temporary directory, and talks to it over HTTP as any
client would. Exits with 1 as soon as something is not as it should be. ``examples/demo.py`` is the same with the SDK.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from shoal.cli.demo_server import DemoError, free_port, interpreter, is_hidden, report, run_demo, say, since

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


def main() -> int:
    """Run the demo; returns the exit code."""
    done = "Done: one sandbox's whole life in {seconds}. Next: shoal serve, and the README."
    return run_demo(lambda server: Demo(f"http://{server.address}").live(), done)


class Demo:
    """The steps of the story, against the server at ``base``."""

    def __init__(self, base: str) -> None:
        self._base = base

    def live(self) -> None:
        """Create, reach, renew, pause, resume, show logs, delete."""
        port = free_port()
        path = self._create(port)
        try:
            self._wait(path)
            self._reach(path, port)
            self._renew(path)
            self._pause_and_resume(path, port)
            self._show(path)
            self._delete(path)
        except BaseException:
            with suppress(DemoError, OSError):
                self._call("DELETE", path, status=204)
            raise

    def _create(self, port: int) -> str:
        body = {
            "image": {"uri": "host"},
            "entrypoint": [str(Path(sys.executable).resolve()), "-u", "-c", SERVICE, str(port)],
            "timeout": 300,
            "resourceLimits": {"memory": "256Mi", "cpu": "500m"},
            "metadata": {"made-by": "demo"},
            "volumes": self._volumes(),
        }
        say("Create a sandbox that runs a small web service", "POST /v1/sandboxes")
        begun = time.monotonic()
        made = self._call("POST", "/v1/sandboxes", body, 202)
        report(f"202 {made['status']['state']}: {made['id']}, accepted in {since(begun)}, expires {made['expiresAt']}")
        return f"/v1/sandboxes/{made['id']}"

    def _wait(self, path: str) -> None:
        begun = time.monotonic()
        seen = self._call("GET", f"{path}?wait=Running&timeout=30")
        if seen["status"]["state"] != "Running":
            raise DemoError(f"the sandbox is {seen['status']}")
        report(f"Running after {since(begun)} more")

    def _volumes(self) -> list[dict[str, Any]]:
        """The interpreter, read-only, if the sandbox would not see it."""
        prefix = str(interpreter())
        if not is_hidden(interpreter()):
            return []
        return [{"name": "python", "host": {"path": prefix}, "mountPath": prefix, "readOnly": True}]

    def _reach(self, path: str, port: int) -> None:
        say("Talk to it through the server's proxy", f"GET {path}/proxy/{port}/hello?from=demo")
        deadline = time.monotonic() + 20
        while True:
            try:
                seen = self._call("GET", f"{path}/proxy/{port}/hello?from=demo")
                break
            except DemoError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)  # the service needs a moment before it listens
        report("the service answers: " + json.dumps(seen))

    def _renew(self, path: str) -> None:
        say("Let it live longer", f"POST {path}/renew-expiration")
        later = (datetime.now(UTC) + timedelta(minutes=15)).isoformat()
        report("expires " + self._call("POST", f"{path}/renew-expiration", {"expiresAt": later})["expiresAt"])

    def _pause_and_resume(self, path: str, port: int) -> None:
        say("Pause it: every process of it is frozen", f"POST {path}/pause")
        self._call("POST", f"{path}/pause", status=202)
        refused = self._call("GET", f"{path}/proxy/{port}/", status=409)
        report(f"{self._call('GET', path)['status']['state']}; the proxy now says {refused['code']}")
        say("Resume it", f"POST {path}/resume")
        self._call("POST", f"{path}/resume", status=202)
        answer = self._call("GET", f"{path}/proxy/{port}/again")
        report(f"{self._call('GET', path)['status']['state']}; the same process answers, pid {answer['pid']}")

    def _show(self, path: str) -> None:
        say("Show its logs", f"GET {path}/diagnostics/logs?tail=5")
        for line in self._text(f"{path}/diagnostics/logs?tail=5").splitlines():
            report(line)
        say("Say what is isolated and limited", f"GET {path}/diagnostics/inspect")
        text = self._text(f"{path}/diagnostics/inspect")
        for line in text[text.index("Isolation:") : text.index("Network:")].splitlines():
            report(line)

    def _delete(self, path: str) -> None:
        say("Delete it", f"DELETE {path}")
        begun = time.monotonic()
        self._call("DELETE", path, status=204)
        gone = self._call("GET", path, status=404)
        report(f"gone after {since(begun)}: {gone['code']}")

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


if __name__ == "__main__":
    sys.exit(main())
