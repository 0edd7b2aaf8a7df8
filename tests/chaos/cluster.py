"""Two servers on one namespace of a cluster, either of which any client may talk to."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from tests.chaos.apiserver import DrainedApi
from tests.chaos.clients import POOL, Body
from tests.chaos.controller import Controller
from tests.chaos.faults import Fault, of_server
from tests.chaos.kubectl import POOLS, RESOURCES, SNAPSHOTS, Holdings, kubectl, native_pool
from tests.k8s_runtime.servers import configuration
from tests.support.servers import ServerProcess

PROVIDER = os.environ.get("SHOAL_CHAOS_PROVIDER", "pod")
CONTROLLER = os.environ.get("SHOAL_CHAOS_CONTROLLER", "")
"""The command of a real controller for that provider, which is then the run's own to stop and kill."""
MANIFEST = os.environ.get("SHOAL_CHAOS_MANIFEST", "")
"""A file of objects that the controller needs in the namespace, such as the secret of its registry."""


TASK_EXECUTOR = os.environ.get("SHOAL_CHAOS_TASK_EXECUTOR", "")
"""The image of the sidecar through which a controller runs commands in pods of a pool."""
POOL_POLICY = '[kubernetes.pool_templates]\ncapabilities = ["SYS_PTRACE", "SYS_ADMIN"]\n'


def _abilities() -> frozenset[str]:
    able = {"snapshot"} if PROVIDER == "batchsandbox" and CONTROLLER else set()
    return frozenset(able | ({"pool"} if able and TASK_EXECUTOR else set()))


class ClusterWorld:
    """Sandboxes of one namespace, by two servers with a store each; the cluster holds the truth."""

    def __init__(self, home: Path, namespace: str) -> None:
        self._namespace = namespace
        self._holdings = Holdings(namespace, PROVIDER)
        self._apis: list[DrainedApi] = []
        self.servers: list[ServerProcess] = []
        self.faults: list[Fault] = []
        self.lacking: list[str] = []
        self.meddled: set[str] = set()
        for name in ("server", "other server"):
            self._add(home / name.replace(" ", "-"), name)
        self.logs = [server.log for server in self.servers]
        self._controller = self._with_controller(home)
        self.faults.append(Fault("a pod removed behind their back", "pod", self._remove_pod))
        if PROVIDER in RESOURCES:
            self.faults.append(Fault("an object removed behind their back", "object", self._remove_object))
        # A pod that goes takes a minute on a slow node, and what is resumed waits for it.
        self.patience = 120.0 if PROVIDER == "pod" else 400.0
        self.late_ends = PROVIDER in RESOURCES
        self.abilities = _abilities()
        self.pool = native_pool(POOL, TASK_EXECUTOR)
        self.pooled_body: Body = {
            "entrypoint": ["sleep", "3600"],
            "resourceLimits": {},
            "extensions": {"poolRef": POOL},
        }
        self.sees_idle = False
        self.body: Body = {
            "image": {"uri": "shoal-test/busybox:latest"},
            "entrypoint": ["sleep", "3600"],
            "resourceLimits": {},
        }

    def _add(self, folder: Path, name: str) -> None:
        folder.mkdir()
        api = DrainedApi(folder)
        self._apis.append(api)
        config = configuration(self._namespace, PROVIDER, extra=POOL_POLICY).replace(
            os.environ["KUBECONFIG"], str(api.kubeconfig)
        )
        server = ServerProcess(folder, config)
        self.servers.append(server)
        self.faults += [*of_server(server, name), api.fault(name)]

    def _with_controller(self, home: Path) -> Controller | None:
        if not CONTROLLER:
            if PROVIDER in RESOURCES:
                self.lacking.append("a controller stopped and killed: SHOAL_CHAOS_CONTROLLER names none")
            return None
        log = home / "controller.log"
        self.logs.append(log)
        controller = Controller(CONTROLLER, log)
        self.faults += controller.faults()
        return controller

    def _remove_pod(self, chance: random.Random) -> None:
        """A plain pod is its sandbox; any other one its controller has to replace."""
        there = sorted(self._holdings.alive())
        if there:
            victim = chance.choice(there)
            if PROVIDER not in RESOURCES:
                self.meddled.add(victim)
            self._holdings.remove_pod(victim)

    def _remove_object(self, chance: random.Random) -> None:
        there = sorted(self._holdings.held())
        if there:
            victim = chance.choice(there)
            self.meddled.add(victim)
            self._holdings.remove_object(victim)

    def ahead(self, *, reset: bool = False) -> float:
        return 0.0

    def tell_access(self, sandbox_id: str, at: datetime) -> None:
        raise NotImplementedError

    def truth(self) -> set[str]:
        return self._holdings.alive()

    def held(self) -> set[str]:
        if self._controller is not None:
            self._controller.check()
        return self._holdings.held()

    def images(self) -> set[str]:
        return self._holdings.snapshots() if "snapshot" in self.abilities else set()

    def lingering(self) -> list[str]:
        """The real controller lets go of no object whose pool is gone before it."""
        return self._holdings.everything()

    def leftovers(self) -> list[str]:
        return self._holdings.everything(*(["pods,jobs", SNAPSHOTS, POOLS] if PROVIDER == "batchsandbox" else []))

    def close(self) -> None:
        for server in self.servers:
            server.kill()
        for api in self._apis:
            api.close()
        if self._controller is not None:
            self._controller.close()


@contextmanager
def cluster_world(home: Path) -> Iterator[ClusterWorld]:
    namespace = f"shoal-chaos-{uuid.uuid4().hex[:10]}"
    kubectl("create", "namespace", namespace)
    if MANIFEST:
        kubectl("-n", namespace, "create", "-f", MANIFEST)
    world = ClusterWorld(home, namespace)
    try:
        yield world
    finally:
        world.close()
        with suppress(AssertionError):
            kubectl("delete", "namespace", namespace, "--wait=false")
