"""What ``deploy/`` says, put into namespaces of a test's own; and the identity that it gives to the server."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # it has no types
from kubernetes import client, config

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "shoal"
OLDER = {
    "policy/v1": ["policy/v1beta1"],
    "flowcontrol.apiserver.k8s.io/v1": [f"flowcontrol.apiserver.k8s.io/v1beta{number}" for number in (3, 2, 1)],
}
Manifest = dict[str, Any]
ALL_VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")


def manifests(form: str, namespace: str) -> list[Manifest]:
    """Everything but the namespaces themselves; both of them become ``namespace``."""
    return moved(built(form), namespace)


def built(form: str) -> str:
    """What ``kubectl apply -k`` applies."""
    command = ["kubectl", "kustomize", str(DEPLOY / form)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def charted(*settings: str) -> str:
    """What ``helm install`` installs, with ``--set`` of each of the settings."""
    flags = [word for setting in settings for word in ("--set", setting)]
    command = ["helm", "template", "shoal", str(CHART), "--namespace", "shoal", "--kube-version", "1.31", *flags]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def moved(text: str, namespace: str) -> list[Manifest]:
    """The same in that namespace, but for the namespaces themselves."""
    text = text.replace("namespace: shoal-sandboxes", f"namespace: {namespace}")
    text = text.replace("namespace: shoal\n", f"namespace: {namespace}\n")
    return [each for each in yaml.safe_load_all(text) if each["kind"] != "Namespace"]


def spoken(given: list[Manifest]) -> list[Manifest]:
    """The same in the versions that the cluster speaks, where an older one has the same fields."""
    said = subprocess.run(["kubectl", "api-versions"], capture_output=True, check=True, text=True).stdout.split()
    return [
        {**each, "apiVersion": next((older for older in OLDER.get(each["apiVersion"], []) if older in said), None)}
        if each["apiVersion"] not in said
        else each
        for each in given
    ]


def apply(given: list[Manifest], *flags: str) -> str:
    """``kubectl apply --server-side``; what it says. Raises CalledProcessError."""
    text = yaml.safe_dump_all(spoken(given))
    command = ["kubectl", "apply", "--server-side", *flags, "-f", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def rights(given: list[Manifest]) -> list[Manifest]:
    """The account and what binds rights to it."""
    return [each for each in given if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")]


def without(given: list[Manifest], resource: str, verb: str) -> list[Manifest]:
    """The same, but for one right."""
    changed: list[Manifest] = json.loads(json.dumps(given))
    for role in changed:
        for rule in role.get("rules", []):
            if rule["resources"] == [resource] and verb in rule["verbs"]:
                rule["verbs"].remove(verb)
        if "rules" in role:
            role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]
    return changed


def in_force(given: list[Manifest], namespace: str) -> None:
    """Returns once the API server's authorizer grants what ``given`` says, and nothing else of these resources."""
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in (rule for role in given for rule in role.get("rules", [])):
        for resource in rule["resources"]:
            granted.setdefault((rule["apiGroups"][0], resource), set()).update(rule["verbs"])
    config.load_kube_config()  # type: ignore[no-untyped-call]  # it has no types
    deadline = time.monotonic() + 60
    for (group, resource), verbs in granted.items():
        for verb in ALL_VERBS:
            while _allowed(namespace, group, resource, verb) is not (verb in verbs):
                assert time.monotonic() < deadline, f"the authorizer does not hear of {verb} {resource}"
                time.sleep(0.05)


def _allowed(namespace: str, group: str, resource: str, verb: str) -> bool:
    asked, _, sub = resource.partition("/")
    attributes = client.V1ResourceAttributes(
        namespace=namespace, group=group, resource=asked, subresource=sub, verb=verb
    )
    spec = client.V1SubjectAccessReviewSpec(
        user=f"system:serviceaccount:{namespace}:shoal", resource_attributes=attributes
    )
    answer = client.AuthorizationV1Api().create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
    return answer.status is not None and bool(answer.status.allowed)


def kubeconfig(place: Path, namespace: str) -> Path:
    """A file by which one is the account ``shoal`` of the namespace, and nobody else."""
    config.load_kube_config()  # type: ignore[no-untyped-call]  # it has no types
    token = subprocess.run(
        ["kubectl", "-n", namespace, "create", "token", "shoal"], capture_output=True, text=True, check=True
    ).stdout.strip()
    server = client.Configuration.get_default_copy()
    cluster = {"server": server.host, "insecure-skip-tls-verify": not server.verify_ssl}
    if server.verify_ssl and server.ssl_ca_cert:
        cluster["certificate-authority"] = server.ssl_ca_cert
    file = place / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return file
