"""The fields of a pod template that a caller may set (Pod Security Standards, level "baseline"), each with its rule."""

from __future__ import annotations

from typing import Final

from shoal_k8s.pools.template.rules import Each, Free, HostPath, Keys, Named, Object, OneOf, Toleration

FREE: Final = Free()
NO: Final = OneOf(False)
"""A switch that may only be off."""
EMPTY: Final = OneOf("")

CAPABILITIES: Final = (
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
)
SYSCTLS: Final = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
)
SELINUX_TYPES: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")

# --- What a process may do --------------------------------------------------------------------------------------------

_PROFILE: Final = Object(type=OneOf("RuntimeDefault", "Localhost"), localhostProfile=FREE)
_SHARED_SECURITY: Final = {
    "runAsUser": FREE,
    "runAsGroup": FREE,
    "runAsNonRoot": FREE,
    "seccompProfile": _PROFILE,
    "appArmorProfile": _PROFILE,
    "seLinuxOptions": Object(type=OneOf(*SELINUX_TYPES), level=FREE, user=EMPTY, role=EMPTY),
    "windowsOptions": Object(hostProcess=NO, runAsUserName=FREE),
}
SECURITY: Final = Object(
    **_SHARED_SECURITY,
    allowPrivilegeEscalation=FREE,
    capabilities=Object(add=Each(Named("capabilities", *CAPABILITIES)), drop=FREE),
    privileged=NO,
    procMount=OneOf("", "Default"),
    readOnlyRootFilesystem=FREE,
)
POD_SECURITY: Final = Object(
    **_SHARED_SECURITY,
    fsGroup=FREE,
    fsGroupChangePolicy=FREE,
    supplementalGroups=FREE,
    supplementalGroupsPolicy=FREE,
    sysctls=Each(Object(name=OneOf(*SYSCTLS), value=FREE)),
)

# --- What a container sees --------------------------------------------------------------------------------------------

_HTTP_GET: Final = Object(path=FREE, port=FREE, scheme=FREE, httpHeaders=FREE, host=EMPTY)
_TCP: Final = Object(port=FREE, host=EMPTY)
_PROBE: Final = Object(
    exec=FREE,
    httpGet=_HTTP_GET,
    tcpSocket=_TCP,
    grpc=FREE,
    initialDelaySeconds=FREE,
    timeoutSeconds=FREE,
    periodSeconds=FREE,
    successThreshold=FREE,
    failureThreshold=FREE,
    terminationGracePeriodSeconds=FREE,
)
_HANDLER: Final = Object(exec=FREE, httpGet=_HTTP_GET, tcpSocket=_TCP, sleep=FREE)
_SECRET: Final = Named("secrets")
_CONFIG_MAP: Final = Named("config_maps")
_ENV: Final = Object(
    name=FREE,
    value=FREE,
    valueFrom=Object(
        fieldRef=FREE,
        resourceFieldRef=FREE,
        secretKeyRef=Object(name=_SECRET, key=FREE, optional=FREE),
        configMapKeyRef=Object(name=_CONFIG_MAP, key=FREE, optional=FREE),
    ),
)
_ENV_FROM: Final = Object(
    prefix=FREE,
    secretRef=Object(name=_SECRET, optional=FREE),
    configMapRef=Object(name=_CONFIG_MAP, optional=FREE),
)
_MOUNT: Final = Object(
    name=FREE,
    mountPath=FREE,
    readOnly=FREE,
    recursiveReadOnly=FREE,
    subPath=FREE,
    subPathExpr=FREE,
    mountPropagation=OneOf("None", "HostToContainer"),
)
CONTAINER: Final = Object(
    name=FREE,
    image=FREE,
    imagePullPolicy=FREE,
    command=FREE,
    args=FREE,
    workingDir=FREE,
    ports=Each(Object(name=FREE, containerPort=FREE, protocol=FREE, hostPort=OneOf(0), hostIP=EMPTY)),
    env=Each(_ENV),
    envFrom=Each(_ENV_FROM),
    resources=Object(limits=FREE, requests=FREE),
    resizePolicy=FREE,
    restartPolicy=FREE,
    volumeMounts=Each(_MOUNT),
    livenessProbe=_PROBE,
    readinessProbe=_PROBE,
    startupProbe=_PROBE,
    lifecycle=Object(postStart=_HANDLER, preStop=_HANDLER, stopSignal=FREE),
    terminationMessagePath=FREE,
    terminationMessagePolicy=FREE,
    securityContext=SECURITY,
    stdin=FREE,
    stdinOnce=FREE,
    tty=FREE,
)

# --- Volumes ----------------------------------------------------------------------------------------------------------

_DOWNWARD: Final = Object(items=FREE, defaultMode=FREE)
_OF_SECRET: Final = {"items": FREE, "optional": FREE}
_NEW_CLAIM: Final = Object(
    metadata=Object(labels=Keys(), annotations=Keys(), creationTimestamp=FREE),
    spec=Object(accessModes=FREE, resources=FREE, storageClassName=FREE, volumeMode=OneOf("Filesystem")),
)
VOLUME: Final = Object(
    name=FREE,
    emptyDir=FREE,
    image=FREE,
    downwardAPI=_DOWNWARD,
    ephemeral=Object(volumeClaimTemplate=_NEW_CLAIM),
    hostPath=Object(path=HostPath(), type=FREE),
    persistentVolumeClaim=Object(claimName=Named("claims"), readOnly=FREE),
    secret=Object(secretName=_SECRET, defaultMode=FREE, **_OF_SECRET),
    configMap=Object(name=_CONFIG_MAP, defaultMode=FREE, **_OF_SECRET),
    projected=Object(
        defaultMode=FREE,
        sources=Each(
            Object(
                downwardAPI=_DOWNWARD,
                secret=Object(name=_SECRET, **_OF_SECRET),
                configMap=Object(name=_CONFIG_MAP, **_OF_SECRET),
            )
        ),
    ),
)

# --- The pod ----------------------------------------------------------------------------------------------------------

POD: Final = Object(
    containers=Each(CONTAINER),
    initContainers=Each(CONTAINER),
    volumes=Each(VOLUME),
    securityContext=POD_SECURITY,
    hostNetwork=NO,
    hostPID=NO,
    hostIPC=NO,
    hostUsers=FREE,
    shareProcessNamespace=FREE,
    serviceAccountName=Named("service_accounts", ""),
    serviceAccount=Named("service_accounts", ""),
    automountServiceAccountToken=NO,
    imagePullSecrets=Each(Object(name=_SECRET)),
    priorityClassName=Named("priority_classes", ""),
    runtimeClassName=Named("runtime_classes"),
    schedulerName=OneOf("", "default-scheduler"),
    nodeName=EMPTY,
    nodeSelector=FREE,
    affinity=FREE,
    tolerations=Each(Toleration()),
    topologySpreadConstraints=FREE,
    restartPolicy=FREE,
    terminationGracePeriodSeconds=FREE,
    activeDeadlineSeconds=FREE,
    resources=Object(limits=FREE, requests=FREE),
    enableServiceLinks=FREE,
    dnsPolicy=FREE,
    dnsConfig=FREE,
    hostname=FREE,
    subdomain=FREE,
    setHostnameAsFQDN=FREE,
    hostAliases=FREE,
    readinessGates=FREE,
    os=FREE,
)
_LEGACY_PROFILE: Final = OneOf("runtime/default", "docker/default")
TEMPLATE: Final = Object(
    metadata=Object(
        name=FREE,
        generateName=FREE,
        creationTimestamp=FREE,
        labels=Keys("app.kubernetes.io/"),
        annotations=Keys(
            values={
                "container.apparmor.security.beta.kubernetes.io/": _LEGACY_PROFILE,
                "seccomp.security.alpha.kubernetes.io/pod": _LEGACY_PROFILE,
                "container.seccomp.security.alpha.kubernetes.io/": _LEGACY_PROFILE,
            }
        ),
    ),
    spec=POD,
)
