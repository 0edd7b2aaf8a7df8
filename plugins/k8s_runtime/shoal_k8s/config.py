"""The keys of ``[kubernetes]``, ``[agent_sandbox]`` and ``[secure_runtime]`` (docs/wire/kubernetes.md section 2)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from shoal.config.settings import NotNegative, Positive, Section

Seconds = Annotated[float, Meta(gt=0)]


class PoolTemplateSettings(Section):
    """``[kubernetes.pool_templates]``: what a pool's template through the API may have beyond Pod Security "baseline".

    Lists of names; ``"*"`` stands for every name.
    """

    capabilities: list[str] = []
    """Added ones, without ``CAP_``."""
    claims: list[str] = []
    config_maps: list[str] = []
    metadata: list[str] = []
    """Keys of labels and annotations, or their prefixes with the slash."""
    priority_classes: list[str] = []
    runtime_classes: list[str] = []
    secrets: list[str] = []
    """Mounted, in the environment, or to pull images with."""
    service_accounts: list[str] = []
    fields: list[str] = []
    """Paths without indexes, ``spec.containers.securityContext.privileged``: what is there is not looked at."""


class KubernetesSettings(Section):
    """``[kubernetes]``. Times in seconds; rates in requests per second, 0 = unlimited."""

    kubeconfig_path: str | None = None
    """None = the file that ``KUBECONFIG`` names, else the pod's service account."""
    insecure_skip_tls_verify: bool = False
    namespace: str | None = None
    """Where sandboxes live; None = the namespace of the service account, else ``default``."""
    informer_resync_seconds: Positive = 300
    informer_watch_timeout_seconds: Positive = 60
    informer_first_list_seconds: Positive = 60
    """How long the first list of each kind may take; a start that has not got it then ends."""
    read_qps: Annotated[float, Meta(ge=0)] = 0
    read_burst: NotNegative = 0
    write_qps: Annotated[float, Meta(ge=0)] = 0
    write_burst: NotNegative = 0
    workload_provider: str | None = None
    """Name of an entry point of the group ``shoal.k8s.providers``."""
    batchsandbox_template_file: str | None = None
    pod_template_file: str | None = None
    """For the provider ``pod``."""
    sandbox_create_timeout_seconds: Positive = 60
    """How long a pod may take to be ready before its create counts as failed."""
    pool_acquisition_timeout_seconds: Positive = 30
    sandbox_create_poll_interval_seconds: Seconds = 1.0
    """Accepted for `opensandbox-server`'s sake: readiness is watched, not polled."""
    execd_init_resources: dict[Literal["limits", "requests"], dict[str, str]] = {}
    """Of the init container that brings execd; empty: as the sandbox's own container, which costs a pod nothing."""
    sidecar_zero_limits: bool = True
    """Sidecars of the operator's without limits say zero, so that a quota takes them. False leaves them as they are."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    agent_token: bool = False
    """Whether the image's execd is shoal's agent, so that each sandbox's can be given an access token of its own."""
    leader_election: bool = True
    """Several servers may share the namespace: the holder of the Lease ``shoal`` ends what is over. False = one."""
    fastpath_endpoint: str = "fast-sandbox-fastpath.opensandbox.svc:9090"
    """This and the rest: accepted for `opensandbox-server`'s sake; its microVM backend is not spoken to."""
    fastpath_timeout_seconds: Positive = 30
    fastpath_wait_ready_seconds: Positive = 30
    fastpath_resource_pool: str = "default-pool"
    template_s3_publish_secret: Annotated[str, Meta(min_length=1)] = "sandbox-oss-credentials"  # noqa: S105 - a name


RETIRED: Final = {
    "informer_enabled": "objects are always read from a watch",
    "service_account": "a template file says which service account pods have",
    "snapshot_create_timeout_seconds": "the controller ends a snapshot",
}
"""Keys of ``[kubernetes]`` that `opensandbox-server` once read → why nothing reads them here."""


class AgentSandboxSettings(Section):
    """``[agent_sandbox]``: for the provider ``agent-sandbox``."""

    template_file: str | None = None
    shutdown_policy: Literal["Delete", "Retain"] = "Delete"
    ingress_enabled: bool = True
    """Accepted for `opensandbox-server`'s sake; without effect there too."""


class KubernetesRuntimeClassSettings(Section):
    """``[secure_runtime]``: the RuntimeClass of sandbox pods."""

    type: Literal["", "gvisor", "kata", "firecracker"] = ""
    docker_runtime: str | None = None
    """For Docker; read here so that one file serves both."""
    k8s_runtime_class: str | None = None
    """Unset = ``gvisor`` for gvisor, ``kata-qemu`` for kata."""

    def __post_init__(self) -> None:
        """Raise ValueError for a half of a setting."""
        named = self.docker_runtime or self.k8s_runtime_class
        if self.type and not named:
            raise ValueError("type needs k8s_runtime_class (or docker_runtime)")
        if named and not self.type:
            raise ValueError("k8s_runtime_class and docker_runtime need a type")

    @property
    def runtime_class(self) -> str | None:
        """The class that pods ask for; None for the cluster's default."""
        return self.k8s_runtime_class or {"gvisor": "gvisor", "kata": "kata-qemu"}.get(self.type)
