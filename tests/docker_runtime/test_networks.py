"""Network modes, published ports and where they are found (docs/wire/docker.md section 7)."""

from __future__ import annotations

import socket
import uuid

import pytest
from tests.docker_runtime.engines import IMAGE
from tests.support.bench import Bench, Make, create, listed

from shoal.config.settings import ServerSettings
from shoal.errors import EngineFailure, InvalidRequest
from shoal.models.plan import NetworkPlan
from shoal_docker.config import DockerSettings
from shoal_docker.hosts import find_hosts
from shoal_docker.ports import HostPorts, is_conflict

pytestmark = pytest.mark.needs("docker")


async def test_host_mode_publishes_nothing(bench: Bench, make: Make) -> None:
    async with make(network_mode="HOST") as runtime:
        plan = bench.plan()
        made = await create(runtime, plan)
        assert (made.address(8080), made.public_address(44772)) == ("127.0.0.1:8080", "127.0.0.1:44772")
        container = bench.container(plan.id)
        assert container.attrs["HostConfig"]["NetworkMode"] == "host"
        assert not container.attrs["HostConfig"]["PortBindings"]
        assert "opensandbox.io/http-port" not in container.labels
        assert await listed(runtime, plan.id) == made


async def test_bridge_mode_publishes_two_ports_and_reaches_the_rest_through_execd(bench: Bench, make: Make) -> None:
    async with make(network_mode="bridge", port_range_min=41000, port_range_max=42000) as runtime:
        plan = bench.plan()
        made = await create(runtime, plan)
        container = bench.container(plan.id)
        proxy, http = (int(container.labels[f"opensandbox.io/{key}-port"]) for key in ("embedding-proxy", "http"))
        assert {proxy, http} <= set(range(41000, 42001))
        bound = container.attrs["NetworkSettings"]["Ports"]
        assert bound["44772/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": str(proxy)}]
        assert bound["8080/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": str(http)}]
        assert made.public_address(8080) == f"127.0.0.1:{http}"
        assert made.public_address(44772) == f"127.0.0.1:{proxy}/proxy/44772"
        assert made.public_address(3000) == f"127.0.0.1:{proxy}/proxy/3000"
        address = container.attrs["NetworkSettings"]["IPAddress"]
        assert made.address(3000) == f"{address}:3000"
        assert await listed(runtime, plan.id) == made


async def test_a_network_of_mixed_case(bench: Bench, make: Make) -> None:
    name = bench.network(f"Shoal-Test-{uuid.uuid4().hex[:8]}")
    async with make(network_mode=name) as runtime:
        plan = bench.plan()
        made = await create(runtime, plan)
        container = bench.container(plan.id)
        assert made.host == container.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]
        assert made.public_proxy


async def test_a_network_that_does_not_exist_is_refused_until_it_does(bench: Bench, make: Make) -> None:
    name = f"shoal-test-{uuid.uuid4().hex[:8]}"
    async with make(network_mode=name) as runtime:
        plan = bench.plan()
        with pytest.raises(InvalidRequest, match=name) as caught:
            await runtime.check(plan)
        assert caught.value.code == "SANDBOX::INVALID_PARAMETER"
    bench.network(name)
    async with make(network_mode=name) as runtime:
        await runtime.check(plan)


async def test_without_a_network_the_endpoint_resolves_all_the_same(bench: Bench, make: Make) -> None:
    async with make(network_mode="none") as runtime:
        plan = bench.plan()
        made = await create(runtime, plan)
        assert made.public_address(44772)
        assert made.address(8080)


async def test_the_mode_is_the_containers_own_and_not_the_configurations(bench: Bench, make: Make) -> None:
    plan = bench.plan()
    async with make(network_mode="bridge") as runtime:
        made = await create(runtime, plan)
    async with make(network_mode="host") as later:
        assert await listed(later, plan.id) == made


async def test_eip_and_publish_host_name_the_host_of_endpoints(bench: Bench, make: Make) -> None:
    plan = bench.plan()
    async with make(server=ServerSettings(host="0.0.0.0", eip="https://sand.example.com:9000/x")) as runtime:
        assert "sand.example.com:" in str((await create(runtime, plan)).public_address(8080))
    async with make(server=ServerSettings(host="0.0.0.0"), publish_host="127.0.0.1") as runtime:
        plan = bench.plan()
        assert "127.0.0.1:" in str((await create(runtime, plan)).public_address(8080))


def test_host_ip_counts_only_inside_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(bind: str = "0.0.0.0", eip: str | None = None) -> tuple[str, str]:
        hosts = find_hosts(bind=bind, eip=eip, host_ip="10.9.8.7", engine="unix:///var/run/docker.sock")
        return hosts.public, hosts.proxy

    monkeypatch.setenv("container", "podman")
    assert found() == ("10.9.8.7", "10.9.8.7")
    assert found(bind="192.0.2.7") == ("192.0.2.7", "192.0.2.7")
    assert found(eip="1.2.3.4") == ("1.2.3.4", "10.9.8.7")


async def test_ports_that_plan_and_sidecars_ask_for_are_published(bench: Bench, make: Make) -> None:
    async with make() as runtime:
        plan = bench.plan(network=NetworkPlan(publish=[5000]))
        made = await create(runtime, plan)
        bound = bench.container(plan.id).attrs["NetworkSettings"]["Ports"]
        assert made.public_address(5000) == f"127.0.0.1:{bound['5000/tcp'][0]['HostPort']}"


async def test_a_port_that_somebody_takes_meanwhile_costs_a_retry(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ports drawn are taken by a container, unseen by the probe, as a race would have it."""
    async with make() as runtime:
        draws = _Draws(monkeypatch)
        bench.client.containers.run(
            IMAGE, ["sleep", "600"], detach=True, ports={"1/tcp": draws.first}, name=f"taken-{bench.new_id()}"
        )
        plan = bench.plan()
        made = await create(runtime, plan)
        assert made.public_address(8080) != f"127.0.0.1:{draws.first}"
        assert draws.calls > 2
        draws.only_first = True
        other = bench.plan()
        with pytest.raises(EngineFailure) as caught:
            await create(runtime, other)
        assert caught.value.code == "DOCKER::SANDBOX_START_FAILED"
        await runtime.delete(other.id)
        assert bench.left(other.id) == []


class _Draws:
    """Has the first port drawn, and on demand every one, be a given one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.socket() as probe:
            probe.bind(("0.0.0.0", 0))
            self.first = int(probe.getsockname()[1])
        self.calls, self.only_first = 0, False
        real = HostPorts._draw

        def draw(ports: HostPorts, protocol: str) -> int:
            self.calls += 1
            return self.first if self.calls == 1 or (self.only_first and self.calls % 2) else real(ports, protocol)

        monkeypatch.setattr(HostPorts, "_draw", draw)


def test_one_very_port_is_kept_for_one_at_a_time_and_only_if_it_is_free() -> None:
    ports = HostPorts(DockerSettings(), local=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with ports.kept(number) as free:
            assert not free
    with ports.kept(number) as first, ports.kept(number) as second:
        assert (first, second) == (True, False)
    with ports.kept(number) as again:
        assert again


@pytest.mark.parametrize(
    ("words", "conflict"),
    [
        ("Bind for 0.0.0.0:41000 failed: port is already allocated", True),
        ("listen tcp4 0.0.0.0:41000: bind: address already in use", True),
        ("bind: An attempt was made to access a socket in a way forbidden by its access permissions", True),
        ("OCI runtime create failed: permission denied", False),
    ],
)
def test_what_counts_as_a_conflict(words: str, conflict: bool) -> None:
    assert is_conflict(words) is conflict
