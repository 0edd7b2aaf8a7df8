"""The runtime ``kubernetes``: a sandbox is what the configured workload provider makes of it.

Reads, lists and addresses come from informers; the API server is asked only to change something and for diagnostics.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import structlog
from msgspec.structs import replace

from shoal.config.settings import NO_AGENT, Settings
from shoal.errors import ConfigError, InvalidRequest, NotFound, Unavailable
from shoal.kit import Feed
from shoal.models import codes
from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload, WorkloadGone
from shoal.plugin.interfaces import Agent, Capabilities, LogQuery, Progress, Runtime
from shoal_k8s import names
from shoal_k8s.api import ApiStatus, KubeApiError, KubeClient
from shoal_k8s.api.connection import ApiConnection
from shoal_k8s.api.failures import map_api_errors
from shoal_k8s.api.limits import TokenBucket
from shoal_k8s.belongings import Belongings
from shoal_k8s.config import (
    AgentSandboxSettings,
    KubernetesRuntimeClassSettings,
    KubernetesSettings,
    PoolTemplateSettings,
)
from shoal_k8s.diagnostics import PodDiagnostics
from shoal_k8s.failures import FailedCreates
from shoal_k8s.informer import Informer
from shoal_k8s.lease import Leadership
from shoal_k8s.pods import spec, storage
from shoal_k8s.pods.defaults import PodDefaults
from shoal_k8s.pods.ending import Ending
from shoal_k8s.pods.objects import PODS, RUNTIME_CLASSES, Pod
from shoal_k8s.pools.template import TemplatePolicy
from shoal_k8s.providers import template
from shoal_k8s.providers.discovery import provider
from shoal_k8s.providers.interface import Cluster, WorkloadProvider
from shoal_k8s.truth import ClusterTruth
from shoal_k8s.waits import Waits

log = structlog.get_logger("shoal.k8s")

DEFAULT_PROVIDER: Final = "batchsandbox"  # docs/wire/kubernetes.md section 2
LEASE: Final = "shoal"
"""Whose holder ends what is over, in each namespace."""
_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubernetesRuntime(Runtime):
    """Sandboxes on one namespace of one cluster.

    Args:
        given: the agent that the image of ``runtime.execd_image`` holds, if ``agent_token`` says so.
    """

    name = "kubernetes"
    scope = "KUBERNETES"
    wrong_state = "INVALID_STATE"
    concurrency = 1_000  # creates wait for their pods here; how many requests are under way is the client's to bound

    def __init__(
        self,
        settings: Settings,
        kubernetes: KubernetesSettings,
        secure: KubernetesRuntimeClassSettings,
        agent: AgentSandboxSettings | None = None,
        pool_templates: PoolTemplateSettings | None = None,
        given: Agent | None = None,
    ) -> None:
        self._agent = agent or AgentSandboxSettings()
        self._pool_policy = TemplatePolicy(
            pool_templates or PoolTemplateSettings(), settings.storage.allowed_host_paths, secure.runtime_class
        )
        self._kubernetes = kubernetes
        self._storage = settings.storage
        self._runtime_class = secure.runtime_class
        self._kind = provider(kubernetes.workload_provider or DEFAULT_PROVIDER)
        execd_image = settings.runtime.execd_image if settings.runtime.execd_image != NO_AGENT else None
        self.agent, self.agent_starts = given if kubernetes.agent_token else None, execd_image is not None
        self._defaults = PodDefaults(
            execd_image=execd_image,
            execd_as_init=settings.runtime.execd_run_as_init,
            pull_policy=kubernetes.image_pull_policy,
            init_resources=kubernetes.execd_init_resources,
            zero_limits=kubernetes.sidecar_zero_limits,
            runtime_class=secure.runtime_class,
            gvisor=secure.type == "gvisor",
            token_environment=None if self.agent is None else self.agent.environment,
        )
        self.resync_interval = float(kubernetes.informer_resync_seconds)
        self.capabilities = Capabilities(
            pause=self._kind.can_pause,
            pools=self._kind.can_pool,
            sidecars=True,
            network_policy=True,
            lifecycle_hooks=execd_image is not None,
            secure_access=True,
            signed_endpoints=True,
            image_auth=True,
            certificates="secret",
            shared=kubernetes.leader_election,
            volumes=frozenset({"host", "pvc"}),
            platforms=self._kind.platforms,
        )
        self._feed = Feed()
        self._started = False
        self._leadership: Leadership | None = None
        self._failures: FailedCreates | None = None
        self._cluster_truth: ClusterTruth
        self._client: KubeClient
        self._provider: WorkloadProvider
        self._belongings: Belongings
        self._waits: Waits
        self._diagnostics: PodDiagnostics
        self._pods: Informer[Pod]
        self._ending: Ending

    # --- life -------------------------------------------------------------------------------------------------------

    def check_config(self) -> None:
        """Read the provider's template file, and see that the kubeconfig is there. Raises ConfigError."""
        path, setting = {
            "batchsandbox": (self._kubernetes.batchsandbox_template_file, "kubernetes.batchsandbox_template_file"),
            "pod": (self._kubernetes.pod_template_file, "kubernetes.pod_template_file"),
            "agent-sandbox": (self._agent.template_file, "agent_sandbox.template_file"),
        }.get(self._kubernetes.workload_provider or DEFAULT_PROVIDER, (None, ""))
        template.read(path, setting)
        if self._agent != AgentSandboxSettings() and setting != "agent_sandbox.template_file":
            log.warning('[agent_sandbox]: ignored; it is for kubernetes.workload_provider = "agent-sandbox"')
        kubeconfig = self._kubernetes.kubeconfig_path
        if kubeconfig and not Path(kubeconfig).expanduser().is_file():
            raise ConfigError(f"kubernetes.kubeconfig_path: there is no file {kubeconfig}")

    async def start(self) -> None:
        """Find the cluster, and list what is there. Raises ConfigError where the server must not start without it."""
        kubernetes = self._kubernetes
        connection = await asyncio.to_thread(
            lambda: ApiConnection(kubernetes.kubeconfig_path, insecure=kubernetes.insecure_skip_tls_verify)
        )
        self._client = KubeClient(
            connection,
            reads=TokenBucket(kubernetes.read_qps, kubernetes.read_burst),
            writes=TokenBucket(kubernetes.write_qps, kubernetes.write_burst),
        )
        namespace = kubernetes.namespace or str(await asyncio.to_thread(_own_namespace))
        resync, timeout = float(kubernetes.informer_resync_seconds), float(kubernetes.informer_watch_timeout_seconds)
        self._pods = Informer(
            connection,
            PODS,
            namespace,
            Pod,
            query={"labelSelector": names.ID},
            index=lambda pod: [pod.metadata.labels[names.ID]],
            resync=resync,
            watch_timeout=timeout,
            first_list=float(kubernetes.informer_first_list_seconds),
        )
        self._ending = Ending(self._client, self._pods)
        cluster = Cluster(
            self._client,
            namespace,
            self._defaults,
            self._pods,
            self._ending,
            resync,
            timeout,
            float(kubernetes.informer_first_list_seconds),
            batchsandbox_template=kubernetes.batchsandbox_template_file,
            plain_template=kubernetes.pod_template_file,
            agent_sandbox_template=self._agent.template_file,
            shutdown_policy=self._agent.shutdown_policy,
            pool_policy=self._pool_policy,
        )
        self._provider = await asyncio.to_thread(self._kind, cluster)
        self.pools = self._provider.pools
        self._diagnostics = PodDiagnostics(self._client, self._provider)
        self._waits = Waits(self._provider, kubernetes, self._diagnostics.trouble)
        self._belongings = Belongings(self._client, namespace, self._storage.volume_default_size)
        if kubernetes.leader_election:
            self._leadership = Leadership(
                self._client, namespace, LEASE, f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
            )
            self._failures = FailedCreates(
                self._client,
                namespace,
                resync=resync,
                watch_timeout=timeout,
                first_list=float(kubernetes.informer_first_list_seconds),
            )
        self.truth = self._cluster_truth = ClusterTruth(
            self._provider, self._belongings, self._waits, self._leadership, self._failures
        )
        try:
            self._started = True
            if self._leadership is not None:
                await self._leadership.start()
            await self._check_runtime_class()
            await self._pods.start()
            await self._provider.start(self._changed)
            if self._failures is not None:
                await self._failures.start(self._changed)
            self.capabilities = replace(self.capabilities, snapshots=self._provider.can_snapshot)
            self.catalogue = self._provider.catalogue
        except KubeApiError as error:
            raise ConfigError(f"kubernetes: {error.as_shoal_error().message}") from error
        except Unavailable as error:
            raise ConfigError(f"kubernetes: {error.message}") from error

    async def stop(self) -> None:
        self._feed.close()
        if self._started:
            if self._leadership is not None:
                await self._leadership.stop()
            await self._ending.close()
            await self._provider.stop()
            if self._failures is not None:
                await self._failures.stop()
            await self._pods.stop()
            self._client.close()

    async def ping(self) -> None:
        """Every watch must be heard; Unavailable otherwise."""
        failures = None if self._failures is None else self._failures.error
        error = self._pods.error or self._provider.error or failures
        if error is not None:
            why = f" {error.as_shoal_error().message}" if isinstance(error, KubeApiError) else ""
            raise Unavailable(f"{self.scope}::API_ERROR", f"The Kubernetes API server is not heard just now.{why}")

    async def _check_runtime_class(self) -> None:
        if self._runtime_class is None:
            return
        try:
            await self._client.get(RUNTIME_CLASSES, None, self._runtime_class, ApiStatus)
        except KubeApiError as error:
            if not error.not_found:
                raise
            raise ConfigError(f"secure_runtime: the cluster has no RuntimeClass {self._runtime_class!r}") from error

    # --- change -----------------------------------------------------------------------------------------------------

    async def check(self, plan: WorkloadPlan) -> None:
        spec.check(plan, self._defaults)
        storage.check(plan.volumes, self._storage.allowed_host_paths)
        self._provider.check(plan)
        if plan.snapshot_image is None and not plan.image:
            raise InvalidRequest(codes.INVALID_PARAMETER, "image.uri is needed.")
        await self.ping()

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        await self._cluster_truth.ensure(plan)
        running = await self._waits.running(plan.id, progress)
        self._cluster_truth.settled(plan.id)
        return running

    async def delete(self, sandbox_id: str) -> None:
        """Returns once the API server has taken it; the pod ends behind that, on a node that answers or not."""
        self._belongings.note(sandbox_id, self._provider.pod_spec(sandbox_id))
        with map_api_errors():
            await self._provider.remove(sandbox_id)
            await self._belongings.remove(sandbox_id)
        self._cluster_truth.settled(sandbox_id)

    async def pause(self, sandbox_id: str) -> Workload:
        with map_api_errors():
            await self._provider.pause(sandbox_id)
        return self._seen(sandbox_id)

    async def resume(self, sandbox_id: str) -> Workload:
        with map_api_errors():
            await self._provider.resume(sandbox_id)
        return self._seen(sandbox_id)

    def _seen(self, sandbox_id: str) -> Workload:
        workload = self._provider.find(sandbox_id)
        if workload is None:
            raise NotFound(f"{self.scope}::SANDBOX_NOT_FOUND", "The sandbox was deleted meanwhile.")
        return workload

    async def check_snapshot(self, sandbox_id: str) -> None:
        with map_api_errors():
            await self._provider.check_snapshot(sandbox_id)

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        with map_api_errors():
            return await self._provider.snapshot(sandbox_id, snapshot_id)

    async def delete_snapshot(self, snapshot_id: str, image: str) -> None:
        with map_api_errors():
            await self._provider.delete_snapshot(snapshot_id)

    # --- see --------------------------------------------------------------------------------------------------------

    async def list(self) -> list[Workload]:
        await self.ping()
        found = self._provider.all()
        if self._failures is not None:
            there = {workload.id for workload in found}
            found += [failure for failure in self._failures.all() if failure.id not in there]
        return found

    def watch(self) -> AsyncIterator[Workload | WorkloadGone]:
        return self._feed.subscribe()

    def _changed(self, sandbox_id: str) -> None:
        """An informer's event: notifies whoever waits for this sandbox, and whoever watches."""
        self._waits.wake(sandbox_id)
        workload = self._provider.find(sandbox_id)
        if workload is not None and workload.phase is Phase.PAUSED:
            self._ending.hasten(sandbox_id)  # a resume waits for its end
        failure = None if self._failures is None else self._failures.find(sandbox_id)
        self._feed.publish(workload or failure or WorkloadGone(id=sandbox_id))

    # --- diagnostics ------------------------------------------------------------------------------------------------

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        return await self._diagnostics.logs(sandbox_id, query)

    async def events(self, sandbox_id: str, limit: int) -> str:
        return await self._diagnostics.events(sandbox_id, limit)

    async def inspect(self, sandbox_id: str) -> str:
        return await self._diagnostics.inspect(sandbox_id)


def _own_namespace() -> str:
    """The namespace of the pod that this server runs in; ``default`` outside the cluster."""
    try:
        return _SERVICE_ACCOUNT.read_text().strip() or "default"
    except OSError:
        return "default"
