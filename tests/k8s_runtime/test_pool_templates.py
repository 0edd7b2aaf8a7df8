"""What a pool's template through the API may ask for: field by field, and what the configuration permits beyond."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.errors import InvalidRequest
from shoal_k8s.config import PoolTemplateSettings
from shoal_k8s.pools.template import TemplatePolicy

POLICY = TemplatePolicy(PoolTemplateSettings(), host_paths=["/srv/shared"])
MAIN = {"name": "main", "image": "busybox"}
PROFILES = "container.apparmor.security.beta.kubernetes.io"


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec": {"containers": [MAIN], **fields}}


def container(kind: str = "containers", **fields: Any) -> dict[str, Any]:
    return pod(**{kind: [{**MAIN, **fields}]})


def secured(**fields: Any) -> dict[str, Any]:
    return container(securityContext=fields)


def volume(**source: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "v", **source}])


def described(**metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, **pod()}


SECURITY = "spec.containers[0].securityContext"
VOLUME = "spec.volumes[0]"
REFUSED: list[tuple[str, dict[str, Any]]] = [
    # Pod Security "baseline"
    (f"{SECURITY}.privileged", secured(privileged=True)),
    (f"{SECURITY}.capabilities.add[1]", secured(capabilities={"add": ["CHOWN", "SYS_ADMIN"]})),
    (f"{SECURITY}.capabilities.add[0]", secured(capabilities={"add": ["ALL"]})),
    (f"{SECURITY}.capabilities.add[0]", secured(capabilities={"add": ["sys_admin"]})),
    (f"{SECURITY}.procMount", secured(procMount="Unmasked")),
    (f"{SECURITY}.seccompProfile.type", secured(seccompProfile={"type": "Unconfined"})),
    (f"{SECURITY}.appArmorProfile.type", secured(appArmorProfile={"type": "Unconfined"})),
    (f"{SECURITY}.seLinuxOptions.type", secured(seLinuxOptions={"type": "spc_t"})),
    (f"{SECURITY}.seLinuxOptions.user", secured(seLinuxOptions={"user": "system_u"})),
    (f"{SECURITY}.windowsOptions.hostProcess", secured(windowsOptions={"hostProcess": True})),
    (
        "spec.initContainers[0].securityContext.privileged",
        container("initContainers", securityContext={"privileged": True}),
    ),
    ("spec.ephemeralContainers", container("ephemeralContainers")),
    ("spec.containers[0].ports[0].hostPort", container(ports=[{"containerPort": 80, "hostPort": 80}])),
    ("spec.containers[0].ports[0].hostIP", container(ports=[{"containerPort": 80, "hostIP": "0.0.0.0"}])),
    (
        "spec.containers[0].livenessProbe.httpGet.host",
        container(livenessProbe={"httpGet": {"host": "169.254.169.254"}}),
    ),
    (
        "spec.containers[0].lifecycle.preStop.tcpSocket.host",
        container(lifecycle={"preStop": {"tcpSocket": {"host": "x"}}}),
    ),
    ("spec.hostNetwork", pod(hostNetwork=True)),
    ("spec.hostNetwork", pod(hostNetwork=1)),
    ("spec.hostPID", pod(hostPID=True)),
    ("spec.hostIPC", pod(hostIPC=True)),
    ("spec.securityContext.seccompProfile.type", pod(securityContext={"seccompProfile": {"type": "Unconfined"}})),
    ("spec.securityContext.sysctls[0].name", pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]})),
    (f"metadata.annotations['{PROFILES}/main']", described(annotations={f"{PROFILES}/main": "unconfined"})),
    # other objects of the namespace
    (f"{VOLUME}.secret.secretName", volume(secret={"secretName": "registry"})),
    (f"{VOLUME}.configMap.name", volume(configMap={"name": "settings"})),
    (f"{VOLUME}.projected.sources[0].secret.name", volume(projected={"sources": [{"secret": {"name": "registry"}}]})),
    (
        f"{VOLUME}.projected.sources[0].serviceAccountToken",
        volume(projected={"sources": [{"serviceAccountToken": {}}]}),
    ),
    (f"{VOLUME}.persistentVolumeClaim.claimName", volume(persistentVolumeClaim={"claimName": "of-another"})),
    (
        f"{VOLUME}.ephemeral.volumeClaimTemplate.spec.dataSource",
        volume(ephemeral={"volumeClaimTemplate": {"spec": {"dataSource": {"kind": "PersistentVolumeClaim"}}}}),
    ),
    ("spec.containers[0].envFrom[0].secretRef.name", container(envFrom=[{"secretRef": {"name": "registry"}}])),
    (
        "spec.containers[0].env[0].valueFrom.secretKeyRef.name",
        container(env=[{"name": "a", "valueFrom": {"secretKeyRef": {"name": "registry", "key": "k"}}}]),
    ),
    ("spec.imagePullSecrets[0].name", pod(imagePullSecrets=[{"name": "registry"}])),
    ("spec.serviceAccountName", pod(serviceAccountName="shoal")),
    ("spec.serviceAccount", pod(serviceAccount="default")),
    ("spec.automountServiceAccountToken", pod(automountServiceAccountToken=True)),
    ("metadata.labels['opensandbox.io/id']", described(labels={"opensandbox.io/id": "somebody-else's"})),
    (
        "metadata.annotations['k8s.v1.cni.cncf.io/networks']",
        described(annotations={"k8s.v1.cni.cncf.io/networks": "x"}),
    ),
    # nodes, and places before others
    (f"{VOLUME}.hostPath.path", volume(hostPath={"path": "/etc"})),
    (f"{VOLUME}.hostPath.path", volume(hostPath={"path": "/srv/shared/../../etc"})),
    (f"{VOLUME}.csi", volume(csi={"driver": "secrets-store.csi.k8s.io"})),
    (f"{VOLUME}.nfs", volume(nfs={"server": "10.0.0.1", "path": "/"})),
    ("spec.nodeName", pod(nodeName="control-plane")),
    ("spec.tolerations[0].key", pod(tolerations=[{"operator": "Exists"}])),
    ("spec.tolerations[0].key", pod(tolerations=[{"key": "node-role.kubernetes.io/control-plane"}])),
    ("spec.schedulerName", pod(schedulerName="mine")),
    ("spec.priorityClassName", pod(priorityClassName="system-node-critical")),
    ("spec.priority", pod(priority=2_000_000_000)),
    ("spec.runtimeClassName", pod(runtimeClassName="runc")),
    ("spec.containers[0].volumeDevices", container(volumeDevices=[{"name": "v", "devicePath": "/dev/x"}])),
    (
        "spec.containers[0].volumeMounts[0].mountPropagation",
        container(volumeMounts=[{"mountPropagation": "Bidirectional"}]),
    ),
    # what is no field, or not of its kind
    ("spec.hostnetwork", pod(hostnetwork=True)),
    ("spec.tomorrow", pod(tomorrow={})),
    ("kind", {"kind": "Pod", **pod()}),
    ("spec.containers", {"spec": {"containers": {"name": "a"}}}),
    ("spec.containers[0]", {"spec": {"containers": ["a"]}}),
    ("spec.containers[0].securityContext", container(securityContext=[])),
    ("metadata", {"metadata": [], **pod()}),
    ("spec.containers", {"spec": {}}),
    ("spec.containers", {}),
]


@pytest.mark.parametrize(("path", "template"), REFUSED, ids=[path for path, _ in REFUSED])
def test_refused_with_its_path(path: str, template: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        POLICY.check(template)
    assert refused.value.message.startswith(f"template.{path}"), refused.value.message
    assert refused.value.message.removeprefix(f"template.{path}")[0] in " :"


def test_an_ordinary_template_is_taken_as_it_is() -> None:
    """As a Deployment's is written out by kubectl, defaults and nulls included."""
    main = {
        **MAIN,
        "args": ["-x"],
        "env": [{"name": "A", "value": "b"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"containerPort": 8080, "protocol": "TCP", "hostPort": 0}],
        "resources": {"limits": {"cpu": "1"}},
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"add": ["CHOWN"], "drop": ["ALL"]},
            "privileged": False,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "terminationMessagePath": "/dev/termination-log",
    }
    template = {
        "metadata": {
            "creationTimestamp": None,
            "labels": {"app": "x", "app.kubernetes.io/name": "x"},
            "annotations": {f"{PROFILES}/main": "runtime/default"},
        },
        "spec": {
            "containers": [main],
            "initContainers": [{**MAIN, "name": "first", "restartPolicy": "Always"}],
            "hostNetwork": False,
            "nodeName": "",
            "nodeSelector": {"disk": "fast"},
            "schedulerName": "default-scheduler",
            "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}], "runAsUser": 1000},
            "serviceAccountName": None,
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "volumes": [
                {"name": "v", "emptyDir": {}},
                {"name": "h", "hostPath": {"path": "/srv/shared/models", "type": "Directory"}},
                {"name": "s", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "fast"}}}},
            ],
        },
    }
    POLICY.check(template)
    completed = POLICY.completed(template)
    assert completed["spec"].pop("automountServiceAccountToken") is False
    assert completed == template


@pytest.mark.parametrize(
    ("settings", "template"),
    [
        (PoolTemplateSettings(capabilities=["SYS_PTRACE"]), secured(capabilities={"add": ["SYS_PTRACE"]})),
        (PoolTemplateSettings(secrets=["registry"]), volume(secret={"secretName": "registry", "items": []})),
        (PoolTemplateSettings(secrets=["*"]), pod(imagePullSecrets=[{"name": "registry"}])),
        (PoolTemplateSettings(claims=["models"]), volume(persistentVolumeClaim={"claimName": "models"})),
        (PoolTemplateSettings(config_maps=["settings"]), volume(configMap={"name": "settings"})),
        (PoolTemplateSettings(service_accounts=["builder"]), pod(serviceAccountName="builder")),
        (PoolTemplateSettings(priority_classes=["low"]), pod(priorityClassName="low")),
        (PoolTemplateSettings(runtime_classes=["kata"]), pod(runtimeClassName="kata")),
        (PoolTemplateSettings(metadata=["example.com/"]), described(labels={"example.com/team": "a"})),
        (PoolTemplateSettings(fields=["spec.nodeName"]), pod(nodeName="n1")),
        (
            PoolTemplateSettings(fields=["spec.containers.securityContext.privileged"]),
            secured(privileged=True),
        ),
        (PoolTemplateSettings(fields=["spec.volumes.csi"]), volume(csi={"driver": "d"})),
        (PoolTemplateSettings(fields=["spec.tolerations"]), pod(tolerations=[{"operator": "Exists"}])),
    ],
)
def test_the_configuration_permits_more_and_only_that(settings: PoolTemplateSettings, template: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        POLICY.check(template)
    TemplatePolicy(settings).check(template)
    with pytest.raises(InvalidRequest):
        TemplatePolicy(settings).check(container("initContainers", securityContext={"privileged": True}))


def test_the_secure_runtime_is_every_pools_too() -> None:
    policy = TemplatePolicy(PoolTemplateSettings(), runtime_class="gvisor")
    policy.check(pod(runtimeClassName="gvisor"))
    assert policy.completed(pod())["spec"]["runtimeClassName"] == "gvisor"
    with pytest.raises(InvalidRequest, match="runtimeClassName"):
        policy.check(pod(runtimeClassName="runc"))
