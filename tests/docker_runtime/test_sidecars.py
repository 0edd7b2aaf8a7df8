"""Sidecars: one network, one life (docs/wire/docker.md section 8)."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from tests.docker_runtime.engines import IMAGE
from tests.support.bench import Bench, Make, create, listed

from shoal.errors import Conflict, EngineFailure, InvalidRequest
from shoal.models.plan import Probe, Sidecar
from shoal.models.workload import Phase, Workload
from shoal.plugin.interfaces import LogQuery
from shoal_docker.ports import HostPorts
from shoal_docker.runtime import DockerRuntime

pytestmark = pytest.mark.needs("docker")

SERVE = "mkdir -p /tmp/w && echo ok >/tmp/w/healthz && exec httpd -f -p {port} -h /tmp/w"


def web(name: str, port: int, **more: object) -> Sidecar:
    """A sidecar that answers ``/healthz``, after a while."""
    command = ["sh", "-c", f"sleep 0.5; {SERVE.format(port=port)}"]
    sidecar = Sidecar(name=name, image=IMAGE, command=command, ports=[port], ready=Probe(port=port, path="/healthz"))
    return replace(sidecar, **more)


async def test_a_first_sidecar_owns_the_network_and_is_ready_before_the_sandbox(bench: Bench, make: Make) -> None:
    check = ["sh", "-c", "wget -q -O - http://127.0.0.1:18080/healthz && sleep 600"]
    plan = bench.plan(command=check, sidecars=[web("egress", 18080, first=True, trusted=True)])
    async with make() as runtime:
        made = await create(runtime, plan)
        sidecar, sandbox = bench.container(plan.id, "egress"), bench.container(plan.id)
        assert sidecar.labels["opensandbox.io/egress-sidecar-for"] == plan.id
        assert "opensandbox.io/id" not in sidecar.labels
        assert sandbox.attrs["HostConfig"]["NetworkMode"] == f"container:{sidecar.id}"
        assert set(sidecar.attrs["NetworkSettings"]["Ports"]) == {"44772/tcp", "8080/tcp", "18080/tcp"}
        http = sidecar.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
        assert sandbox.labels["opensandbox.io/http-port"] == http
        assert made.public_address(8080) == made.address(8080) == f"127.0.0.1:{http}"
        assert "ok" in await runtime.logs(plan.id, LogQuery()), "the sidecar answered before the sandbox began"
        assert await listed(runtime, plan.id) == made
        await runtime.delete(plan.id)
        assert bench.left(plan.id) == []


async def test_other_sidecars_join_the_sandbox(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("db", 5432), web("cache", 6379)])
    async with make() as runtime:
        made = await create(runtime, plan)
        sandbox = bench.container(plan.id)
        for name in ("db", "cache"):
            assert bench.container(plan.id, name).attrs["HostConfig"]["NetworkMode"] == f"container:{sandbox.id}"
        answer = sandbox.exec_run(["wget", "-q", "-O", "-", "http://127.0.0.1:6379/healthz"])
        assert answer.output == b"ok\n"
        assert made.public_address(5432)
        assert "db" in str(await _message(runtime, plan.id))
        assert await runtime.logs(plan.id, LogQuery(container="db")) == "(no logs)"
        await runtime.delete(plan.id)
        assert bench.left(plan.id) == []


async def _message(runtime: DockerRuntime, sandbox_id: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await runtime.logs(sandbox_id, LogQuery(container="nope"))
    return caught.value


async def test_pause_and_resume_take_all_of_them(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("egress", 18080, first=True), web("db", 5432)])
    async with make() as runtime:
        await create(runtime, plan)
        everyone = [bench.container(plan.id), bench.container(plan.id, "egress"), bench.container(plan.id, "db")]
        for operation, phase, status in (
            (runtime.pause, Phase.PAUSED, "paused"),
            (runtime.pause, Phase.PAUSED, "paused"),
            (runtime.resume, Phase.RUNNING, "running"),
        ):
            assert (await operation(plan.id)).phase is phase
            for container in everyone:
                container.reload()
                assert container.status == status


async def test_half_a_pause_by_a_crash_is_completed(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("egress", 18080, first=True)])
    async with make() as runtime:
        await create(runtime, plan)
        bench.container(plan.id).pause()
        assert (await runtime.pause(plan.id)).phase is Phase.PAUSED
        assert bench.container(plan.id, "egress").status == "paused"


async def test_a_missing_guard_leaves_the_sandbox_as_it_is(bench: Bench, make: Make) -> None:
    labels = {"opensandbox.io/egress-auth-token": "t"}
    plan = bench.plan(sidecars=[web("egress", 18080, first=True)], labels=labels)
    async with make() as runtime:
        await create(runtime, plan)
        bench.container(plan.id, "egress").remove(force=True)
        with pytest.raises(EngineFailure) as caught:
            await runtime.pause(plan.id)
        assert caught.value.code == "DOCKER::SANDBOX_PAUSE_FAILED"
        assert bench.container(plan.id).status == "running"
        bench.container(plan.id).pause()
        with pytest.raises(EngineFailure) as caught:
            await runtime.resume(plan.id)
        assert caught.value.code == "DOCKER::SANDBOX_RESUME_FAILED"
        assert bench.container(plan.id).status == "paused"


async def test_a_sidecar_that_dies_shows_in_the_sandboxs_status(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("egress", 18080, first=True)])
    async with make() as runtime:
        await create(runtime, plan)
        seen = asyncio.create_task(_first_failure(runtime, plan.id))
        await asyncio.sleep(0.2)
        bench.container(plan.id, "egress").kill()
        told = await asyncio.wait_for(seen, 30)
        assert (told.reason, told.message) == ("SIDECAR_EXITED", "The sidecar egress ended with exit code 137.")
        assert await listed(runtime, plan.id) == told
        bench.container(plan.id).kill()
        with pytest.raises(Conflict):
            await runtime.pause(plan.id)


async def _first_failure(runtime: DockerRuntime, sandbox_id: str) -> Workload:
    async for change in runtime.watch():
        if change.id == sandbox_id and isinstance(change, Workload) and change.phase is Phase.FAILED:
            return change
    raise AssertionError("the watch ended")


async def test_a_sidecar_that_is_gone_or_pruned_is_missed(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("db", 5432)])
    async with make() as runtime:
        await create(runtime, plan)
        sidecar = bench.container(plan.id, "db")
        await asyncio.to_thread(sidecar.stop, timeout=0)
        assert (await seen(runtime, plan.id)).reason == "SIDECAR_EXITED"
        await asyncio.to_thread(sidecar.remove)
        found = await seen(runtime, plan.id)
        assert (found.phase, found.reason) == (Phase.FAILED, "SIDECAR_EXITED")
    async with make() as runtime:  # one that has not seen how it ended
        found = await seen(runtime, plan.id)
        assert (found.phase, found.reason, found.message) == (
            Phase.FAILED,
            "SIDECAR_GONE",
            "The sidecar db is gone.",
        )


async def test_a_sidecar_that_is_removed_is_told_of_at_once(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("db", 5432)])
    async with make() as runtime:
        await create(runtime, plan)
        told = asyncio.create_task(_first_failure(runtime, plan.id))
        await asyncio.sleep(0.2)
        bench.container(plan.id, "db").remove(force=True)
        assert (await asyncio.wait_for(told, 30)).reason in ("SIDECAR_EXITED", "SIDECAR_GONE")


async def test_another_servers_sandbox_whose_guard_is_gone_has_failed(bench: Bench, make: Make) -> None:
    sandbox_id = bench.new_id()
    bench.run(sandbox_id, {"opensandbox.io/egress-auth-token": "t", "opensandbox.io/manual-cleanup": "true"})
    async with make(known=lambda _: False) as runtime:
        found = await seen(runtime, sandbox_id)
        assert (found.phase, found.reason) == (Phase.FAILED, "SIDECAR_GONE")


@pytest.mark.parametrize("watched", [True, False])
async def test_a_sandbox_in_a_network_that_was_made_anew_does_not_run(bench: Bench, make: Make, watched: bool) -> None:
    plan = bench.plan(sidecars=[web("egress", 18080, first=True), web("db", 5432)])
    async with make() as runtime:
        await create(runtime, plan)
        told = asyncio.create_task(_first_failure(runtime, plan.id)) if watched else None
        assert (await seen(runtime, plan.id)).phase is Phase.RUNNING
        await asyncio.to_thread(bench.container(plan.id, "egress").restart, timeout=0)
        found = await seen(runtime, plan.id)
        assert (found.phase, found.reason) == (Phase.FAILED, "NETWORK_LOST")
        assert str(found.message).startswith("The sidecar egress was started again")
        if told is not None:
            assert (await asyncio.wait_for(told, 30)).reason in ("NETWORK_LOST", "SIDECAR_EXITED")
        await asyncio.to_thread(bench.container(plan.id).restart, timeout=0)
        await asyncio.to_thread(bench.container(plan.id, "db").restart, timeout=0)
    async with make() as runtime:
        assert (await seen(runtime, plan.id)).phase is Phase.RUNNING, "both have joined the new network"


async def test_sidecars_of_a_sandbox_that_was_restarted_are_cut_off(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("db", 5432)])
    async with make() as runtime:
        await create(runtime, plan)
        await asyncio.to_thread(bench.container(plan.id).restart, timeout=0)
        assert (await seen(runtime, plan.id)).reason == "NETWORK_LOST"


@pytest.mark.parametrize("watched", [True, False])
async def test_sidecars_end_with_the_sandboxs_command(bench: Bench, make: Make, watched: bool) -> None:
    plan = bench.plan(
        command=["sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.1; done"],
        sidecars=[web("egress", 18080, first=True), web("db", 5432)],
    )
    async with make() as runtime:
        await create(runtime, plan)
        following = asyncio.create_task(_first_end(runtime, plan.id)) if watched else None
        await asyncio.sleep(0.2)
        bench.container(plan.id).exec_run(["touch", "/tmp/end"])
        await asyncio.to_thread(bench.container(plan.id).wait)
        if following is None:
            assert (await seen(runtime, plan.id)).phase is Phase.EXITED
        else:
            assert (await asyncio.wait_for(following, 30)).phase is Phase.EXITED
        for name in ("egress", "db"):
            await asyncio.to_thread(bench.container(plan.id, name).wait)
        assert (await seen(runtime, plan.id)).phase is Phase.EXITED
        assert await runtime.logs(plan.id, LogQuery(container="db")) == "(no logs)"


async def seen(runtime: DockerRuntime, sandbox_id: str) -> Workload:
    """The workload as the list shows it."""
    found = await listed(runtime, sandbox_id)
    assert found is not None
    return found


async def _first_end(runtime: DockerRuntime, sandbox_id: str) -> Workload:
    async for change in runtime.watch():
        if change.id == sandbox_id and isinstance(change, Workload) and change.phase is Phase.EXITED:
            return change
    raise AssertionError("the watch ended")


async def test_a_sidecar_whose_work_is_done_is_no_failure(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[Sidecar(name="init", image=IMAGE, command=["true"])])
    async with make() as runtime:
        await create(runtime, plan)
        await asyncio.to_thread(bench.container(plan.id, "init").wait)
        found = await listed(runtime, plan.id)
        assert found is not None
        assert found.phase is Phase.RUNNING


@pytest.mark.parametrize(
    ("command", "words"),
    [(["sh", "-c", "exit 5"], "ended with exit code 5"), (["sleep", "600"], "not ready within 2 seconds")],
)
async def test_a_sidecar_that_never_is_ready_fails_the_create(
    bench: Bench, make: Make, command: list[str], words: str
) -> None:
    probe = Probe(port=18080, path="/healthz", timeout_seconds=2)
    plan = bench.plan(sidecars=[web("egress", 18080, first=True, command=command, ready=probe)])
    async with make() as runtime:
        with pytest.raises(EngineFailure, match=words) as caught:
            await create(runtime, plan)
        assert caught.value.code == "DOCKER::SANDBOX_START_FAILED"
        await runtime.delete(plan.id)
        assert bench.left(plan.id) == []


async def test_sysctls_that_the_engine_refuses_are_left_out(bench: Bench, make: Make) -> None:
    sysctls = {"net.ipv4.ip_forward": "1", "kernel.no_such_thing": "1"}
    plan = bench.plan(sidecars=[web("egress", 18080, first=True, sysctls=sysctls, trusted=True)])
    async with make() as runtime:
        await create(runtime, plan)
        assert not bench.container(plan.id, "egress").attrs["HostConfig"].get("Sysctls")


async def test_a_callers_sidecar_is_confined_and_the_operators_is_not(bench: Bench, make: Make) -> None:
    plan = bench.plan(
        sidecars=[
            web("egress", 18080, first=True, trusted=True, capabilities=["NET_ADMIN"]),
            web("db", 5432, resource_limits={"memory": "32Mi"}, env={"A": "b"}),
        ]
    )
    async with make() as runtime:
        await create(runtime, plan)
        trusted, other = (bench.container(plan.id, name).attrs["HostConfig"] for name in ("egress", "db"))
        assert (trusted["CapAdd"], trusted["CapDrop"]) == (["NET_ADMIN"], None)
        assert "SYS_ADMIN" in other["CapDrop"]
        assert other["SecurityOpt"] == ["no-new-privileges=true"]
        assert other["Memory"] == 32 * 1024 * 1024
        assert "A=b" in bench.container(plan.id, "db").attrs["Config"]["Env"]


async def test_a_port_conflict_of_a_sidecar_is_retried(
    bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = HostPorts._draw, []
    async with make() as runtime:
        other = bench.plan()
        await create(runtime, other)
        taken = int(bench.container(other.id).labels["opensandbox.io/http-port"])

        def draw(ports: HostPorts, protocol: str) -> int:
            calls.append(protocol)
            return taken if len(calls) == 1 else real(ports, protocol)

        monkeypatch.setattr(HostPorts, "_draw", draw)
        plan = bench.plan(sidecars=[web("egress", 18080, first=True)])
        assert (await create(runtime, plan)).phase is Phase.RUNNING
        assert len(calls) == 6


async def test_a_create_that_a_crash_cut_off_between_sidecar_and_sandbox(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[web("egress", 18080, first=True)])
    async with make() as runtime:
        await create(runtime, plan)
        before = bench.container(plan.id, "egress").id
        bench.container(plan.id).remove(force=True)
        assert (await create(runtime, plan)).phase is Phase.RUNNING
        assert bench.container(plan.id, "egress").id != before
        bench.container(plan.id, "egress").remove(force=True)
        assert (await create(runtime, plan)).phase is Phase.RUNNING


async def test_sidecars_on_the_hosts_network(bench: Bench, make: Make) -> None:
    plan = bench.plan(sidecars=[Sidecar(name="helper", image=IMAGE, command=["sleep", "600"])])
    async with make(network_mode="host") as runtime:
        made = await create(runtime, plan)
        assert bench.container(plan.id, "helper").attrs["HostConfig"]["NetworkMode"] == "host"
        assert made.address(80) == "127.0.0.1:80"
