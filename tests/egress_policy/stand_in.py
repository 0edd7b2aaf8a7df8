"""A stand-in for the egress sidecar, as strict as the real one was seen to be. Runs on plain Python 3 with ``nft``.

What it keeps to; the tests in ``test_sidecar.py`` hold the real one to the same:

- ``GET /healthz`` needs no token and answers ``ok``.
- ``/policy`` wants the token of ``OPENSANDBOX_EGRESS_TOKEN`` in ``OPENSANDBOX-EGRESS-AUTH``; else 401 in plain text.
- GET answers ``status``, ``mode`` (``deny_all``, ``allow_all``, ``enforcing``), ``enforcementMode`` and ``policy``,
  whose ``defaultAction`` is filled in: absent is ``deny``. An empty policy has ``egress: null``.
- PUT and POST replace, PATCH merges (a new rule of the same target replaces, new ones come first), DELETE removes. All
  answer 200 without the policy. An empty list, an unknown action and an empty target are a 400 in plain text.
- A policy that changed is kept in the file that ``OPENSANDBOX_EGRESS_POLICY_FILE`` names, and read from there at start.
- Vault writes: 412 without the transparent proxy, 426 unless they come over loopback; its contents are in memory.
- With ``OPENSANDBOX_EGRESS_MODE=dns+nft`` addresses are filtered, by nftables in the network namespace. With ``dns``
  they are not. Rules of names are kept and answered; there is no name server in it, so they filter nothing.
- Rules that cannot be read at start: the program ends and is started again, for ever; nothing ever listens.
- A program that crashed is started again and its rules of the network stay meanwhile; at SIGTERM they go, the exit code
  is 0, and ``STAND_IN_LINGER`` seconds may pass (the real one has up to 20).
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Rule = dict[str, str]
PREFIX = "OPENSANDBOX_EGRESS_"
TABLE = "inet opensandbox"
RESTART_SECONDS = 0.5


def variable(name: str) -> str:
    return os.environ.get(PREFIX + name, "").strip()


class Refused(Exception):
    """A request that is answered in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Policy:
    """The rules in force."""

    def __init__(self) -> None:
        self.action = "deny"
        self.rules: list[Rule] | None = None
        kept = Path(variable("POLICY_FILE") or "/none")
        given = kept.read_text() if kept.exists() else variable("RULES")
        self._set(json.loads(given.strip() or "{}"))

    def replace(self, policy: dict[str, Any]) -> None:
        self._set(policy)
        if variable("POLICY_FILE"):
            Path(variable("POLICY_FILE")).write_text(json.dumps(self.shown()))

    def merge(self, rules: list[Rule]) -> None:
        kept: dict[str, Rule] = {}
        for rule in [*rules, *(self.rules or [])]:
            kept.setdefault(rule["target"].lower(), rule)
        self.replace({"defaultAction": self.action, "egress": list(kept.values())})

    def remove(self, targets: list[str]) -> bool:
        names = {target.strip().lower() for target in targets}
        kept = [rule for rule in self.rules or [] if rule["target"].lower() not in names]
        found = len(kept) < len(self.rules or [])
        if found:
            self.replace({"defaultAction": self.action, "egress": kept})
        return found

    def shown(self) -> dict[str, Any]:
        return {"egress": self.rules, "defaultAction": self.action}

    @property
    def mode(self) -> str:
        return "enforcing" if self.rules or self.action not in ("allow", "deny") else f"{self.action}_all"

    def _set(self, policy: dict[str, Any]) -> None:
        rules = policy.get("egress")
        rules = rules if rules is None else [self._rule(rule) for rule in rules]
        action = (policy.get("defaultAction") or "").strip().lower() or "deny"
        self._filter(action, rules or [])
        self.action, self.rules = action, rules

    def _rule(self, rule: Rule) -> Rule:
        action = (rule.get("action") or "").strip().lower() or "deny"
        if action not in ("allow", "deny"):
            raise ValueError(f'unsupported action "{action}"')
        target = (rule.get("target") or "").strip()
        if not target:
            raise ValueError("egress target cannot be empty")
        return {"action": action, "target": target}

    def _filter(self, action: str, rules: list[Rule]) -> None:
        if variable("MODE") != "dns+nft":
            return
        verdicts = {"allow": "accept", "deny": "drop"}
        lines = [f"add table {TABLE}", f"delete table {TABLE}", f"add table {TABLE}"]
        lines.append(
            f"add chain {TABLE} egress {{ type filter hook output priority 0; policy {verdicts.get(action, 'drop')}; }}"
        )
        lines += [f"add rule {TABLE} egress {what} accept" for what in ("ct state established,related", 'oifname "lo"')]
        for verdict in ("deny", "allow"):
            for rule in rules:
                if rule["action"] == verdict and is_address(rule["target"]):
                    family = "ip6" if ":" in rule["target"] else "ip"
                    lines.append(f"add rule {TABLE} egress {family} daddr {rule['target']} {verdicts[verdict]}")
        nft("\n".join(lines))


def is_address(target: str) -> bool:
    try:
        ipaddress.ip_network(target, strict=False)
    except ValueError:
        return False
    return True


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True)


class Handler(BaseHTTPRequestHandler):
    """The API on port 18080."""

    protocol_version = "HTTP/1.1"
    policy: Policy
    vault: dict[str, Any] | None = None
    one_at_a_time = threading.Lock()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        try:
            with self.one_at_a_time:
                self._route(body)
        except Refused as refused:
            self._send(refused.status, refused.text + "\n", "text/plain; charset=utf-8")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - as the library calls them

    def _route(self, body: str) -> None:
        if self.path == "/healthz":
            self._send(200, "ok", "text/plain; charset=utf-8")
            return
        if self.path not in ("/policy", "/credential-vault"):
            raise Refused(404, "404 page not found")
        if variable("TOKEN") and self.headers.get("OPENSANDBOX-EGRESS-AUTH") != variable("TOKEN"):
            raise Refused(401, "unauthorized")
        (self._policy if self.path == "/policy" else self._vault)(body)

    def _policy(self, body: str) -> None:
        policy = Handler.policy
        told: dict[str, Any] = {}
        try:
            if self.command == "GET":
                told["policy"] = policy.shown()
            elif self.command in ("PUT", "POST"):
                policy.replace(json.loads(body or "{}"))
            elif self.command == "PATCH":
                policy.merge(listed(body, "patch rules"))
            elif not policy.remove(listed(body, "delete targets")):
                told["reason"] = "no matching targets found"
        except ValueError as error:
            raise Refused(400, f"invalid policy: {error}") from None
        self._json(200, {"status": "ok", "mode": policy.mode, "enforcementMode": variable("MODE") or "dns", **told})

    def _vault(self, body: str) -> None:
        if self.command != "GET":
            self._check_write()
        if self.command == "POST":
            if Handler.vault is not None:
                raise Refused(409, "credential vault already exists")
            Handler.vault = contents(json.loads(body))
            self._json(201, Handler.vault)
        elif Handler.vault is None:
            raise Refused(404, "credential vault not found")
        elif self.command == "DELETE":
            Handler.vault = None
            self._send(204, "", None)
        else:
            self._json(200, Handler.vault)

    def _check_write(self) -> None:
        if variable("MITMPROXY_TRANSPARENT").lower() not in ("1", "true", "yes", "y", "on"):
            raise Refused(412, "credential vault requires transparent mitmproxy")
        if not ipaddress.ip_address(self.client_address[0]).is_loopback:
            raise Refused(426, "credential vault writes require TLS or loopback transport")

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content) + "\n", "application/json")

    def _send(self, status: int, text: str, kind: str | None) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


def listed(body: str, what: str) -> list[Any]:
    if not body:
        raise Refused(400, "empty body")
    found: list[Any] = json.loads(body)
    if not found:
        raise Refused(400, f"invalid {what}: empty array")
    return found


def contents(request: dict[str, Any]) -> dict[str, Any]:
    """The vault as it is shown: names, never values."""
    credentials = [{"name": each["name"], "sourceType": "inline", "revision": 1} for each in request["credentials"]]
    bindings = [
        {"name": each["name"], "revision": 1, "match": each["match"], "auth": {"type": each["auth"]["type"]}}
        for each in request["bindings"]
    ]
    return {"revision": 1, "credentials": credentials, "bindings": bindings}


def serve() -> None:
    """The sidecar itself; ends with 1 for rules that cannot be read."""
    leave_certificate()
    try:
        Handler.policy = Policy()
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"failed to load initial egress policy: {error}")
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("", 18080), Handler).serve_forever()


def leave_certificate() -> None:
    """What a sandbox behind the transparent proxy waits for, in the directory that both share."""
    directory = Path("/opt/opensandbox")
    if directory.is_dir():
        (directory / "mitmproxy-ca-cert.pem").write_text("a certificate\n")


def supervise() -> None:
    """Start the sidecar, again whenever it ends, until SIGTERM."""
    children: list[subprocess.Popen[bytes]] = []

    def leave(*_: object) -> None:
        children[-1].kill()
        if variable("MODE") == "dns+nft":
            nft(f"add table {TABLE}\ndelete table {TABLE}")
        time.sleep(float(os.environ.get("STAND_IN_LINGER", "0")))
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    while True:
        children[:] = [subprocess.Popen([sys.executable, __file__, "serve"])]
        children[0].wait()
        time.sleep(RESTART_SECONDS)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else supervise()
