"""Two servers on one namespace of a cluster, either of which any client may talk to."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shlex
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes
from tests.chaos.clients import Body
from tests.chaos.faults import Fault, of_server
from tests.k8s_runtime.relay import Relay
from tests.k8s_runtime.servers import configuration
from tests.servers import ServerProcess

PROVIDER = os.environ.get("SHOAL_CHAOS_PROVIDER", "pod")
CONTROLLER = os.environ.get("SHOAL_CHAOS_CONTROLLER", "")
"""The command of a real controller for that provider, which is then the run's own to stop and kill."""


class DrainedApi:
    """The way of one server to the API server, which can be closed."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._relay: Relay = self._call(self._open())
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "relay", "cluster": {"server": self._relay.url}}],
                    "users": [{"name": "relay", "user": {"token": self._relay.token}}],
                    "contexts": [{"name": "relay", "context": {"cluster": "relay", "user": "relay"}}],
                    "current-context": "relay",
                }
            )
        )

    async def _open(self) -> Relay:
        settings = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]  # it has no types
        return await Relay(settings).__aenter__()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def fault(self, name: str) -> Fault:
        return Fault(f"the API server is drained for the {name}", f"api of the {name}", self._drain, self._return)

    def _drain(self, _chance: random.Random) -> None:
        self._relay.refusing = True
        self._loop.call_soon_threadsafe(self._relay.cut)

    def _return(self) -> None:
        self._relay.refusing = False

    def close(self) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._relay.__aexit__(None, None, None)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Controller:
    """A real controller, started by its command, stopped, killed and started again."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def faults(self) -> list[Fault]:
        def stop(_chance: random.Random) -> None:
            self._process.send_signal(signal.SIGSTOP)

        def kill(_chance: random.Random) -> None:
            self._process.kill()
            self._process.wait()

        return [
            Fault("SIGSTOP of the controller", "controller", stop, self.go_on),
            Fault("kill -9 of the controller", "controller", kill, self.go_on),
        ]

    def go_on(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
        else:
            self._process = self._started()

    def close(self) -> None:
        self.go_on()
        self._process.kill()
        self._process.wait()


class ClusterWorld:
    """Pods of one namespace, by two servers with a store each; the cluster holds the truth."""

    def __init__(self, home: Path, namespace: str) -> None:
        self._namespace = namespace
        self._apis: list[DrainedApi] = []
        self.servers: list[ServerProcess] = []
        self.faults: list[Fault] = []
        self.lacking: list[str] = []
        self.meddled: set[str] = set()
        for name in ("server", "other server"):
            self._add(home / name.replace(" ", "-"), name)
        self._controller = Controller(CONTROLLER) if CONTROLLER else None
        if self._controller is not None:
            self.faults += self._controller.faults()
        elif PROVIDER != "pod":
            self.lacking.append("controllers stopped and killed: SHOAL_CHAOS_CONTROLLER names none")
        self.faults.append(Fault("a pod removed behind their back", "pod", self._meddle))
        self.abilities: frozenset[str] = frozenset()
        self.body: Body = {
            "image": {"uri": "shoal-test/busybox:latest"},
            "entrypoint": ["sleep", "3600"],
            "resourceLimits": {},
        }

    def _add(self, folder: Path, name: str) -> None:
        folder.mkdir()
        api = DrainedApi(folder)
        self._apis.append(api)
        config = configuration(self._namespace, PROVIDER).replace(os.environ["KUBECONFIG"], str(api.kubeconfig))
        server = ServerProcess(folder, config)
        self.servers.append(server)
        self.faults += [*of_server(server, name), api.fault(name)]

    def _meddle(self, chance: random.Random) -> None:
        if PROVIDER != "pod":
            return  # its controller makes another one
        there = sorted(self.truth())
        if there:
            victim = chance.choice(there)
            self.meddled.add(victim)
            _kubectl("-n", self._namespace, "delete", "pod", victim, "--grace-period=0", "--force", "--wait=false")

    def ahead(self, *, reset: bool = False) -> float:
        return 0.0

    def tell_access(self, sandbox_id: str, at: datetime) -> None:
        raise NotImplementedError

    def truth(self) -> set[str]:
        """Pods that are not on their way out."""
        found = json.loads(_kubectl("-n", self._namespace, "get", "pods", "-l", "opensandbox.io/id", "-o", "json"))
        return {
            pod["metadata"]["labels"]["opensandbox.io/id"]
            for pod in found["items"]
            if "deletionTimestamp" not in pod["metadata"]
        }

    def images(self) -> set[str]:
        return set()

    def leftovers(self) -> list[str]:
        return _kubectl(
            "-n", self._namespace, "get", "pods,secrets,pvc", "-l", "opensandbox.io/id", "-o", "name"
        ).split()

    def close(self) -> None:
        for server in self.servers:
            server.kill()
        for api in self._apis:
            api.close()
        if self._controller is not None:
            self._controller.close()


def _kubectl(*words: str) -> str:
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "NotFound" in done.stderr, done.stderr
    return done.stdout


@contextmanager
def cluster_world(home: Path) -> Iterator[ClusterWorld]:
    namespace = f"shoal-chaos-{uuid.uuid4().hex[:10]}"
    _kubectl("create", "namespace", namespace)
    world = ClusterWorld(home, namespace)
    try:
        yield world
    finally:
        world.close()
        with suppress(AssertionError):
            _kubectl("delete", "namespace", namespace, "--wait=false")
