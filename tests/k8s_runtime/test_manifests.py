"""``deploy/`` as manifests: chart and kustomize say the same, an API server takes both, sandboxes are shut in."""

from __future__ import annotations

import ipaddress
import tomllib
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from tests.k8s_runtime.deployment import DEPLOY, Manifest, apply, built, charted, manifests, moved

FORMS = ["pod", "batchsandbox", "agent-sandbox"]
EVERYTHING = [
    "ingress.enabled=true",
    "flowSchema.enabled=true",
    "quota.pods=5",
    "limitRange[0].type=Container",
    "limitRange[0].default.memory=1Gi",
    "networkPolicy.gatewayNamespaces={gateway}",
    "networkPolicy.clients={192.0.2.0/24}",
    "kubernetes.image_pull_policy=Always",
    "runtime.execd_image=opensandbox/execd:v1.1.0",
    "config=[proxy]",
    "template.spec.priorityClassName=low",
]


def comparable(text: str) -> dict[tuple[str, str], Manifest]:
    """By kind and name, without what is the chart's own, and the content of the ConfigMap under one name."""
    found = {}
    for thing in yaml.safe_load_all(text):
        meta = thing["metadata"]
        meta.pop("annotations", None)
        for key in ("app.kubernetes.io/managed-by", "app.kubernetes.io/name", "helm.sh/chart"):
            meta.get("labels", {}).pop(key, None)
        if not meta.get("labels"):
            meta.pop("labels", None)
        if thing["kind"] == "ConfigMap":
            meta["name"] = "shoal"
            thing["data"] = {name: _lines(value) for name, value in thing["data"].items()}
        if thing["kind"] == "Deployment":
            template = thing["spec"]["template"]
            template["metadata"].pop("annotations", None)
            template["spec"]["volumes"][0]["configMap"]["name"] = "shoal"
        found[thing["kind"], meta["name"]] = thing
    found.pop(("Namespace", "shoal"), None)  # helm makes it itself
    return found


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()


@pytest.mark.needs("helm")
@pytest.mark.parametrize("form", FORMS)
def test_the_chart_says_what_kustomize_says(form: str) -> None:
    assert comparable(charted(f"provider={form}")) == comparable(built(form))


@pytest.mark.needs("helm")
@pytest.mark.parametrize("form", FORMS)
def test_the_chart_brings_a_template_file(form: str) -> None:
    text = charted(f"provider={form}", "template.spec.x=low")
    data = comparable(text)["ConfigMap", "shoal"]["data"]
    assert data["template.yaml"] == ["spec:", "  x: low"]
    section = "agent_sandbox" if form == "agent-sandbox" else "kubernetes"
    key = "template_file" if form == "agent-sandbox" else f"{form}_template_file"
    assert tomllib.loads("\n".join(data["shoal.toml"]))[section][key] == "/etc/shoal/template.yaml"


@pytest.mark.needs("helm")
@pytest.mark.needs("k8s")
def test_an_api_server_takes_the_chart_with_everything_switched_on(namespace: str) -> None:
    said = apply(moved(charted(*EVERYTHING), namespace), "--dry-run=server")
    for part in ("ingress.networking", "flowschema.flow", "resourcequota/", "limitrange/", "poddisruptionbudget"):
        assert part in said


@pytest.mark.needs("k8s")
def test_an_api_server_takes_the_examples(namespace: str) -> None:
    said = apply(manifests("examples", namespace), "--dry-run=server")
    for part in ("ingress.networking", "flowschema.flow", "resourcequota/", "limitrange/"):
        assert part in said


def policy(name: str) -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "base" / "network.yaml").read_text())
    spec: dict[str, Any] = next(each["spec"] for each in documents if each["metadata"]["name"] == name)
    return spec


def reaches(address: str) -> bool:
    """Whether a sandbox may open a connection there: what a network plugin makes of ``ipBlock``."""
    ip = ipaddress.ip_address(address)
    blocks = [
        peer["ipBlock"] for rule in policy("shoal-sandboxes")["egress"] for peer in rule["to"] if "ipBlock" in peer
    ]
    return any(
        ip in ipaddress.ip_network(block["cidr"])
        and not any(ip in ipaddress.ip_network(hole) for hole in block.get("except", []))
        for block in blocks
    )


def test_sandboxes_reach_the_internet_and_nothing_of_the_cluster() -> None:
    assert all(reaches(address) for address in ("1.1.1.1", "140.82.112.3", "172.32.0.1", "2606:4700::1111"))
    inside = ["10.96.0.1", "10.244.3.4", "172.20.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "fd00::1", "fe80::1"]
    metadata = ["169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"]
    disguised = ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]
    assert [address for address in inside + metadata + disguised if reaches(address)] == []


def test_sandboxes_are_reached_by_the_server_alone() -> None:
    spec = policy("shoal-sandboxes")
    assert (spec["podSelector"], spec["policyTypes"]) == ({}, ["Ingress", "Egress"])
    peers = [peer for rule in spec["ingress"] for peer in rule["from"]]
    assert [set(peer) for peer in peers] == [{"namespaceSelector", "podSelector"}]
    server = policy("shoal")["ingress"][0]["from"][0]["namespaceSelector"]["matchExpressions"][0]
    assert (server["operator"], server["values"]) == ("NotIn", ["shoal-sandboxes"])
